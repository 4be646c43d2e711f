"""FLOPs and parameters: those of the published table, and of the formula at any size."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmtimesformer.analysis.complexity import in_billions, in_millions, measure_complexity
from mmtimesformer.config.find import find_config

PUBLISHED = {  # scheme: multiply-adds and parameters, in figures and as MMAction2's table has them
    'divST': (195_829_972_992, 121_566_352, '196G', '122M'),
    'jointST': (179_562_498_048, 86_112_400, '180G', '86.11M'),
    'spaceOnly': (140_504_481_792, 86_106_256, '141G', '86.11M'),
}


@pytest.mark.parametrize('scheme', PUBLISHED)
def test_flops_and_parameters_are_those_of_the_published_table(scheme: str) -> None:
    path = find_config(f'timesformer_{scheme}_8xb8-8x32x1-15e_kinetics400-rgb')
    cost = measure_complexity(Config.fromfile(path))
    multiply_adds, parameters, billions, millions = PUBLISHED[scheme]
    assert cost.shape == (3, 8, 224, 224)
    assert cost.multiply_adds == multiply_adds
    assert cost.parameters == parameters
    assert in_billions(cost.multiply_adds) == billions
    assert in_millions(cost.parameters) == millions


def count_by_hand(attention_type: str, t: int, p: int, d: int, layers: int, patch: int) -> int:
    """The paper's model, term by term: projections of tokens, then attention between them."""
    tokens = {'divided': 1 + p * t, 'joint': 1 + p * t, 'space': t * (1 + p)}[attention_type]
    mlp = 8 * tokens * d * d
    if attention_type == 'divided':
        time = 5 * p * t * d * d + 2 * p * t * t * d  # qkv, proj and temporal_fc; scores and sums
        space = 4 * t * (1 + p) * d * d + 2 * t * (1 + p) ** 2 * d
        block = time + space + mlp
    else:
        sequences = 1 if attention_type == 'joint' else t
        length = tokens // sequences
        block = 4 * tokens * d * d + 2 * sequences * length**2 * d + mlp
    return t * p * 3 * patch * patch * d + layers * block


@pytest.mark.parametrize('attention_type', ['divided', 'joint', 'space'])
@pytest.mark.parametrize('size', [(32, 48), (16, 16)])
def test_the_count_is_that_of_the_formula(attention_type: str, size: tuple[int, int]) -> None:
    names = {'divided': 'divided_space_time', 'joint': 'joint_space_time', 'space': 'space_only'}
    backbone: dict[str, Any] = dict(
        type='mmtimesformer.TimeSformer', num_frames=5, img_size=size, patch_size=8,
        embed_dims=24, num_layers=3, num_heads=2, attention_type=names[attention_type],
    )  # fmt: skip
    head = dict(type='TimeSformerHead', num_classes=7, in_channels=24)
    cfg = Config(dict(model=dict(type='Recognizer3D', backbone=backbone, cls_head=head)))
    patches = size[0] * size[1] // 64
    by_hand = count_by_hand(attention_type, 5, patches, 24, 3, 8)
    assert measure_complexity(cfg).multiply_adds == by_hand


def test_larger_frames_cost_more() -> None:
    path = find_config('timesformer_divST-tiny_moving-shapes')
    cfg = Config.fromfile(path)
    small, large = measure_complexity(cfg), measure_complexity(cfg, (64, 128))
    assert large.shape == (3, 8, 64, 128)
    assert 2 <= large.multiply_adds / small.multiply_adds < 2.2


def test_a_config_without_a_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match=r'no model\.backbone'):
        measure_complexity(Config(dict(lr=1)))


def test_the_tool_prints_a_line_for_each_config(tmp_path: Path, capfd: Any) -> None:
    from runpy import run_path

    tool = Path(__file__).parents[2] / 'tools' / 'analysis_tools' / 'get_flops.py'
    main = run_path(str(tool))['main']
    name = 'timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb'
    assert main([name, '--cfg-options', 'model.backbone.num_layers=2']) == 0
    assert main([name, '--shape', '448', '--exact']) == 0
    assert main(['nothing']) == 1
    out, err = capfd.readouterr()
    assert '8 x 224 x 224' in out and '8 x 448 x 448' in out
    assert 'config nothing is neither' in err
