"""MMAction2's own configs build our backbone: two lines change, as docs/migration.md says."""

from pathlib import Path
from typing import Any

import mmaction
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmtimesformer import TimeSformer
from mmtimesformer.models import mmaction2_arguments

FOLDER = Path(mmaction.__file__).parent / '.mim/configs/recognition/timesformer'
SMALL: dict[str, Any] = {'num_layers': 1, 'embed_dims': 12, 'num_heads': 2, 'img_size': 32}


@pytest.mark.parametrize('scheme', ['divST', 'jointST', 'spaceOnly'])
def test_a_config_of_mmaction2_builds_ours_with_a_note(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = f'{FOLDER}/timesformer_{scheme}_8xb8-8x32x1-15e_kinetics400-rgb.py'
    mine = tmp_path / 'mine.py'
    mine.write_text(
        f"_base_ = '{theirs}'\n"
        "custom_imports = dict(imports=['mmtimesformer'], allow_failed_imports=False)\n"
        "model = dict(backbone=dict(type='mmtimesformer.TimeSformer'))\n"
    )
    cfg = Config.fromfile(mine)
    source = cfg.model.backbone.pretrained
    notes: list[str] = []
    monkeypatch.setattr(mmaction2_arguments, 'print_log', lambda text, **how: notes.append(text))
    with DefaultScope.overwrite_default_scope('mmaction'), torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert type(model.backbone) is TimeSformer
    assert model.backbone.attention_type == cfg.model.backbone.attention_type
    assert model.backbone.norm.eps == 1e-6
    assert model.backbone.init_cfg == {'type': 'mmtimesformer.Pretrained', 'checkpoint': source}
    (note,) = notes
    assert note.startswith(f'backbone.pretrained={source!r} is used as backbone.init_cfg')


def test_pretrained_loads_the_checkpoint(tmp_path: Path) -> None:
    small = {**SMALL, 'attention_type': 'space_only'}
    image_vit = TimeSformer(**small)
    torch.save(image_vit.state_dict(), tmp_path / 'start.pth')
    model = TimeSformer(
        **SMALL, attention_type='space_only', pretrained=str(tmp_path / 'start.pth')
    )
    model.init_weights()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, image_vit.state_dict()[name]), name


def test_their_names_of_layers_and_epsilon_are_felt() -> None:
    del (small := dict(SMALL))['num_layers']
    model = TimeSformer(**small, num_transformer_layers=3, norm_cfg={'type': 'LN', 'eps': 1e-3})
    assert len(model.blocks) == 3
    assert model.norm.eps == model.blocks[0].norm1.eps == 1e-3


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'norm_cfg': {'type': 'BN'}}, "norm_cfg=.*only type='LN'"),
        ({'dropout_ratio': 0.1}, 'dropout_ratio=0.1 .*drop_rate'),
        ({'transformer_layers': [{}]}, 'transformer_layers=.*block_cfg'),
        (
            {'pretrained': 'x.pth', 'norm_cfg': None, 'init_cfg': {'type': 'Xavier'}},
            'init_cfg and pretrained of',
        ),
    ],
)
def test_what_has_no_equal_here_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeSformer(**SMALL, **arguments)


def test_an_empty_pretrained_is_none_as_in_mmaction2() -> None:
    assert TimeSformer(**SMALL, pretrained='').init_cfg is None


def test_a_typing_error_is_still_an_error() -> None:
    with pytest.raises(TypeError, match='pretraind'):
        TimeSformer(**SMALL, pretraind='x.pth')
