"""Dumps of both versions of MMAction2 are read, and no program in them runs."""

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import dump

from mmtimesformer.analysis.predictions import read_predictions, top1

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


def test_an_empty_dump_and_a_missing_file_have_different_messages(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match='--dump'):
        read_predictions(tmp_path / 'none.pkl')
    dump([], str(tmp_path / 'empty.pkl'))
    with pytest.raises(ValueError, match='holds no predictions'):
        read_predictions(tmp_path / 'empty.pkl')


class Program:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('where', ['alone', 'in a sample', 'in a tensor'])
def test_a_program_in_place_of_predictions_is_refused_and_not_run(
    where: str, tmp_path: Path
) -> None:
    program = Program(tmp_path / 'it_ran')
    if where == 'in a tensor':  # the bytes of a storage are a file of torch, in the file
        inner = io.BytesIO()
        torch.save(program, inner)
        content = pickle.dumps(Storage(inner.getvalue()))
    else:
        content = pickle.dumps(program if where == 'alone' else [{'pred_score': program}])
    (tmp_path / 'predictions.pkl').write_bytes(content)
    with pytest.raises(ValueError, match='predictions.pkl'):
        read_predictions(tmp_path / 'predictions.pkl')
    assert not program.marker.exists()


@pytest.mark.parametrize(
    'samples',
    [
        [1, 2],
        ['a'],
        [{}],
        [{'pred_score': 3, 'gt_label': 1}],
        [{'pred_score': SCORES[0]}],
        {'a': 1},
    ],
)
def test_other_content_than_predictions_is_refused(samples: object, tmp_path: Path) -> None:
    (tmp_path / 'predictions.pkl').write_bytes(pickle.dumps(samples))
    with pytest.raises(ValueError, match=r'predictions\.pkl (holds no|does not hold)'):
        read_predictions(tmp_path / 'predictions.pkl')


class Storage:
    """A tensor's storage, as pickle writes it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple:
        return torch.storage._load_from_bytes, (self.content,)
