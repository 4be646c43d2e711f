"""Several labels of a video: on the disk, in tar shards, of unreadable videos, from a CSV."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmaction.evaluation import mean_average_precision

from mmtimesformer.compat.data_samples import LOWEST_LOGIT, wrong_scores
from mmtimesformer.datasets.preparation.own_data import read_own_data
from mmtimesformer.datasets.preparation.packing import (
    list_entries,
    list_labelled,
    plan_tar_shards,
    write_tar_shard,
)
from mmtimesformer.datasets.tar_shards.dataset import TarShardVideoDataset
from mmtimesformer.datasets.tar_shards.index import DamagedTarShardError, format_index, parse_index
from mmtimesformer.datasets.video_dataset import VideoDataset

LABELS = ['0 2', '1', '', '0 1 2', '2 2', '1']
ROWS = [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1], [0, 1, 0]]
PIPELINE = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=2, num_clips=1, test_mode=True),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
SEVERAL = {'multi_class': True, 'num_classes': 3, 'test_mode': True}


@pytest.fixture
def folder(tiny_videos: Path, tmp_path: Path) -> Path:
    """Six videos, the second empty, with a list of several labels and tar shards of them."""
    for i in range(6):
        shutil.copy(tiny_videos / f'{i}.mp4', tmp_path)
    (tmp_path / '1.mp4').write_bytes(b'')
    lines = [f'{i}.mp4 {labels}'.strip() for i, labels in enumerate(LABELS)]
    (tmp_path / 'list.txt').write_text('\n'.join(lines) + '\n')
    return tmp_path


def pack(folder: Path) -> Path:
    """Write tar shards as tools/data/write_shards.py does; return the index."""
    out = folder / 'shards'
    shards = plan_tar_shards(list_labelled(folder / 'list.txt'), folder, out, 10**9, 60)
    for shard in shards:
        write_tar_shard(shard)
    entries, _ = list_entries(shards)
    (out / 'index.tsv').write_text('\n'.join(format_index(entries)) + '\n')
    return out / 'index.tsv'


def truth_of(sample: Any) -> torch.Tensor:
    samples = sample['data_samples']
    truth: torch.Tensor = samples.gt_labels.item if 'gt_labels' in samples else samples.gt_label
    return truth


@pytest.mark.parametrize('kind', ['files', 'shards'])
def test_rows_are_those_of_the_list(folder: Path, kind: str) -> None:
    dataset: Any
    if kind == 'files':
        prefix = {'video': str(folder)}
        dataset = VideoDataset(str(folder / 'list.txt'), PIPELINE, prefix, **SEVERAL)
    else:
        dataset = TarShardVideoDataset(str(pack(folder)), PIPELINE, **SEVERAL)
    assert [truth_of(dataset[i]).tolist() for i in range(6)] == ROWS
    assert dataset[1]['data_samples'].failed  # also of the one that cannot be read


@pytest.mark.parametrize(
    ('labels', 'words'),
    [('1-2', 'the line of video 0'), ('1  2', 'the line of video 0'), ('1' * 20, 'the line of')],
)
def test_a_label_of_an_index_that_is_no_number_is_refused(
    folder: Path, labels: str, words: str
) -> None:
    index = pack(folder)
    heading, first = index.read_text().splitlines()[1:3]
    text = f'{heading}\n{first.rpartition(chr(9))[0]}\t{labels}\n'  # without the checksum
    with pytest.raises(DamagedTarShardError, match=words):
        parse_index(text, str(index))


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'num_classes': None}, 'num_classes is not set'),
        ({'num_classes': 2}, r'0\.mp4 has label 2, which is not in 0\.\.1'),
        ({'multi_class': False}, r'0\.mp4 has 2 labels; set multi_class=True'),
    ],
)
def test_labels_in_shards_that_fit_no_row_are_refused(
    folder: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        TarShardVideoDataset(str(pack(folder)), PIPELINE, **(SEVERAL | settings))


@pytest.mark.parametrize('logits', [False, True])
def test_an_unreadable_video_lowers_the_precision_of_its_classes(logits: bool) -> None:
    """Of logits 0 would be among the highest scores, so that it would count as right."""
    rng = np.random.default_rng(0)
    labels = rng.random((40, 5)) < 0.3
    labels[7] = [True, False, True, False, False]
    scores = np.where(labels, 0.9, 0.1) + rng.normal(0, 0.02, labels.shape)
    if logits:
        scores = 20 * (scores - 1.2)  # all are negative
    perfect = mean_average_precision(list(scores), list(labels.astype(float)))
    assert perfect == pytest.approx(1)
    row = torch.tensor(labels[7].astype(np.float32))
    scores[7] = wrong_scores(torch.tensor(scores[7]), row).numpy()
    found = mean_average_precision(list(scores), list(labels.astype(float)))
    each = [
        mean_average_precision(list(scores[:, [i]]), list(labels[:, [i]].astype(float)))
        for i in range(5)
    ]
    assert found < 0.999
    assert [one < 0.999 for one in each] == labels[7].tolist()


def test_wrong_scores_of_one_class_and_of_all() -> None:
    assert wrong_scores(torch.tensor([0.3]), torch.tensor([1.0])).tolist() == [0]
    assert wrong_scores(torch.tensor([0.3]), torch.tensor([0.0])).tolist() == [1]
    assert wrong_scores(torch.tensor([0.3, 0.9]), torch.ones(2)).tolist() == [0, 0]
    assert wrong_scores(torch.tensor([-3.0, 2.0]), torch.ones(2)).tolist() == [LOWEST_LOGIT] * 2
    found = wrong_scores(torch.tensor([-3.0, 2.0]), torch.tensor([1.0, 0.0]))
    assert found.argmax() == 1 and found.max() < -1000


def test_a_csv_gives_several_labels(tmp_path: Path) -> None:
    table = tmp_path / 'labels.csv'
    rows = ['a,run;left', 'b,run', 'b,left', 'c,', 'd,jump', 'e, left ;run', 'f,jump']
    table.write_text('path,label\n' + '\n'.join(row.replace(',', '.mp4,', 1) for row in rows))
    data = read_own_data(tmp_path, table, multi_label=True)
    assert data.classes == ['jump', 'left', 'run']
    labels = {v.names[0]: v.label for split in data.splits.values() for v in split.videos}
    assert labels == {
        'a.mp4': (1, 2), 'b.mp4': (1, 2), 'c.mp4': (), 'd.mp4': (0,), 'e.mp4': (1, 2), 'f.mp4': (0,)
    }  # fmt: skip
    assert len(data.splits['val'].videos) == 2  # one of each combination that has several


def test_two_labels_where_one_is_meant_are_not_overwritten(tmp_path: Path) -> None:
    table = tmp_path / 'labels.csv'
    table.write_text('a.mp4,run\nb.mp4,run\na.mp4,left\n')
    with pytest.raises(ValueError, match=r"a\.mp4 has the labels 'run' and 'left'; .*--multi"):
        read_own_data(tmp_path, table)
    with pytest.raises(ValueError, match='for several give --csv'):
        read_own_data(tmp_path, multi_label=True)
