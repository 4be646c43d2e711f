"""bf16 and int8 change scores a little, and the tool reports how much."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmtimesformer import VideoClassifier

TOOL = Path(__file__).resolve().parents[2] / 'tools/analysis_tools/compare_precision.py'


@pytest.mark.parametrize(('precision', 'moves'), [('bf16', 0.05), ('int8', 0.05)])
def test_scores_move_a_little(
    precision: str, moves: float, config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    exact = VideoClassifier(config, checkpoint, device='cpu')(tiny_videos / '0.mp4')
    clf = VideoClassifier(config, checkpoint, device='cpu', precision=precision)
    found = clf(tiny_videos / '0.mp4')
    assert found.all_scores.dtype == np.float32
    difference = np.abs(found.all_scores - exact.all_scores).max()
    assert 0 < difference < moves


def test_int8_replaces_every_linear_layer_of_the_blocks(config: Path, checkpoint: Path) -> None:
    clf = VideoClassifier(config, checkpoint, device='cpu', precision='int8')
    block = clf.model.backbone.blocks[-1]
    assert not any(type(part) is nn.Linear for part in block.modules())
    assert type(clf.model.cls_head.fc_cls) is nn.Linear


def test_what_cannot_be_is_refused(config: Path, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="precision='fp8' is not known; give fp32, bf16, int8"):
        VideoClassifier(config, checkpoint, device='cpu', precision='fp8')
    with pytest.raises(ValueError, match='computes on a CPU, not on meta'):
        from mmtimesformer.inference.quantization import prepare

        prepare(nn.Module(), 'int8', torch.device('meta'))


def test_the_tool_tells_how_far_scores_move(
    config: Path, checkpoint: Path, tiny_videos: Path, capsys: pytest.CaptureFixture
) -> None:
    spec = importlib.util.spec_from_file_location('compare_precision', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    words = map(str, [tiny_videos, config, checkpoint, '--device', 'cpu'])
    assert module.main(list(words)) == 0
    lines = [line.split('│') for line in capsys.readouterr().out.splitlines() if '│' in line]
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in lines}
    assert set(rows) == {'fp32', 'bf16', 'int8'}
    assert float(rows['fp32'][1]) == 0
    for precision in ('bf16', 'int8'):
        assert 0 < float(rows[precision][2]) <= float(rows[precision][1]) < 0.05
