import numpy as np
import pytest
import torch
from mmengine.fileio import dump

from mmtimesformer.visualization import read_predictions, top1

SCORES = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
LABELS = [1, 1, 1]


def as_dumped_by_1_1() -> list[dict]:
    return [
        {'pred_scores': {'item': scores}, 'gt_labels': {'item': torch.tensor([label])}}
        for scores, label in zip(SCORES, LABELS, strict=True)
    ]


def as_dumped_by_1_2() -> list[dict]:
    return [
        {'pred_score': scores, 'gt_label': torch.tensor([label])}
        for scores, label in zip(SCORES, LABELS, strict=True)
    ]


@pytest.mark.parametrize('samples', [as_dumped_by_1_1(), as_dumped_by_1_2()], ids=['1.1', '1.2'])
def test_both_versions_of_mmaction2_are_read_alike(samples: list[dict], tmp_path) -> None:
    dump(samples, str(tmp_path / 'predictions.pkl'))
    scores, labels = read_predictions(tmp_path / 'predictions.pkl')
    assert np.array_equal(scores, SCORES.numpy())
    assert labels.tolist() == LABELS
    assert top1(scores, labels) == pytest.approx(2 / 3)


def test_no_predictions_are_told_from_no_file(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match='--dump'):
        read_predictions(tmp_path / 'none.pkl')
    dump([], str(tmp_path / 'empty.pkl'))
    with pytest.raises(ValueError, match='holds no predictions'):
        read_predictions(tmp_path / 'empty.pkl')
