"""A bad video is replaced in training, and counts as wrong in testing; bugs are not swallowed."""
# ruff: noqa: NPY002  (the global state is what is seeded)

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmaction.evaluation import AccMetric
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.structures import LabelData
from torch.utils.data import DataLoader

from mmtimesformer.compat.data_samples import label_of, scores_of, wrong_scores
from mmtimesformer.datasets.video_dataset import FailedSample, VideoDataset

PIPELINE = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=4, frame_interval=2, num_clips=1),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]


@pytest.fixture
def folder(tiny_videos: Path, tmp_path: Path) -> Path:
    """Six videos of the labels 0 to 5, of which 2 is empty and 4 is missing."""
    for i in range(6):
        shutil.copy(tiny_videos / f'{i}.mp4', tmp_path)
    (tmp_path / '2.mp4').write_bytes(b'')
    (tmp_path / '4.mp4').unlink()
    (tmp_path / 'list.txt').write_text(''.join(f'{i}.mp4 {i}\n' for i in range(6)))
    return tmp_path


def build(folder: Path, **options: Any) -> VideoDataset:
    settings = {'ann_file': str(folder / 'list.txt'), 'data_prefix': {'video': str(folder)}}
    return VideoDataset(**{**settings, 'pipeline': PIPELINE, **options})


def test_it_is_found_by_its_name(default_scope: str | None, folder: Path) -> None:
    assert DATASETS.get('mmtimesformer.VideoDataset') is VideoDataset


def test_a_bad_video_is_replaced_in_training(folder: Path) -> None:
    dataset = build(folder)
    for index, name, reason in [(2, '2.mp4', 'it is empty'), (4, '4.mp4', 'it does not exist')]:
        sample = dataset[index]['data_samples']
        assert label_of(sample) in {0, 1, 3, 5}, 'the label is that of the video shown'
        first = sample.replaces[0]
        assert first == {'file': str(folder / name), 'reason': reason, 'worker': -1}
    assert 'replaces' not in dataset[0]['data_samples']


def test_a_good_video_is_what_mmaction2_gives(folder: Path) -> None:
    from mmaction.datasets import VideoDataset as Theirs

    settings = {'ann_file': str(folder / 'list.txt'), 'data_prefix': {'video': str(folder)}}
    np.random.seed(5)
    theirs = Theirs(**settings, pipeline=PIPELINE)[3]
    np.random.seed(5)
    ours = build(folder)[3]
    assert torch.equal(ours['inputs'], theirs['inputs'])
    assert ours['data_samples'].to_dict() == theirs['data_samples'].to_dict()


def test_the_replacement_follows_from_the_seed_and_the_index_alone(folder: Path) -> None:
    def labels(order: list[int]) -> dict[int, list[int]]:
        dataset, chosen = build(folder), {}
        for index in order:
            chosen[index] = []
            for epoch in range(12):
                np.random.seed(100 * epoch)  # as the loop does; the index is set as well
                chosen[index].append(label_of(dataset[index]['data_samples']))
        return chosen

    one, other = labels([2, 4]), labels([4, 2])
    assert one == other
    assert len({*one[2]}) > 1, 'in another epoch another video takes its place'
    same = sum(a == b for a, b in zip(one[2], one[4], strict=True))
    assert same <= 6, 'and not that of another bad one, unless by chance'


def test_workers_tell_which_of_them_met_it(folder: Path) -> None:
    loader = DataLoader(build(folder), batch_size=1, num_workers=2, collate_fn=lambda batch: batch)
    met = {
        video['file'][-5:]: video['worker']
        for (sample,) in loader
        for video in sample['data_samples'].get('replaces', ())[:1]
    }
    assert met == {'2.mp4': 0, '4.mp4': 0}  # batches are dealt out in turn: 0, 2, 4 to the first


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_bug_is_not_taken_for_a_bad_video(folder: Path, test_mode: bool) -> None:
    def bug(results: dict[str, Any]) -> dict[str, Any]:
        raise error

    dataset = build(folder, pipeline=[*PIPELINE[:3], bug], test_mode=test_mode)
    for error in (
        TypeError('a bug'),
        ValueError('a bug'),
        RuntimeError('a bug'),
        KeyError('a bug'),
    ):
        with pytest.raises(type(error), match='a bug'):
            dataset[0]
        with pytest.raises(type(error), match='a bug'):
            dataset[2]  # by the pipeline of the replacement
    with pytest.raises(FileNotFoundError, match='palette'):
        error = FileNotFoundError(2, 'No such file', 'palette.png')
        dataset[0]


@pytest.mark.parametrize('reader', ['Decord', 'PyAV'])
def test_mmaction2s_own_readers_are_understood(folder: Path, reader: str) -> None:
    pytest.importorskip('decord')
    (folder / '0.mp4').write_bytes(b'no video\n' * 1000)
    pipeline = [dict(step) for step in PIPELINE]
    pipeline[0]['type'], pipeline[2]['type'] = f'mmaction.{reader}Init', f'mmaction.{reader}Decode'
    dataset = build(folder, pipeline=pipeline)
    for index in (0, 2, 4):
        (first, *_) = dataset[index]['data_samples'].replaces
        assert first['file'] == str(folder / f'{index}.mp4')
        assert first['reason']


@pytest.mark.parametrize('test_mode', [False, True])
def test_a_data_set_without_a_good_video_says_so(folder: Path, test_mode: bool) -> None:
    dataset = build(folder, data_prefix={'video': str(folder / 'nowhere')}, test_mode=test_mode)
    with pytest.raises(ValueError, match=r'6 videos one after the other .*3\.mp4: .*data_prefix'):
        dataset[3]
    (folder / 'list.txt').write_text('2.mp4 0\n')
    with pytest.raises(ValueError, match=r'1 videos one after the other .*2\.mp4: it is empty'):
        build(folder, test_mode=test_mode)[0]


def test_without_a_listener_each_bad_video_is_logged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        'mmtimesformer.datasets.video_dataset.print_log', lambda text, **_: logged.append(text)
    )
    dataset = build(folder)
    dataset[2]
    assert logged == [f'{folder}/2.mp4 cannot be read: it is empty']
    dataset.has_listener = True
    dataset[2]
    assert len(logged) == 1


# -- testing ---------------------------------------------------------------------------------------


def answer(samples: list[Any], scores: torch.Tensor, api: str) -> None:
    """Write predictions into samples, as the heads of MMAction2 1.1.0 or 1.2.0 do."""
    for sample, row in zip(samples, scores, strict=True):
        if api == '1.1.0':
            sample.pred_scores = LabelData(item=row)
            sample.pred_labels = LabelData(item=row.argmax(-1, keepdim=True))
        else:
            sample.set_field(row, 'pred_score')
            sample.set_field(row.argmax(-1, keepdim=True), 'pred_label')


@pytest.mark.parametrize('api', ['1.1.0', '1.2.0'])
def test_a_failed_video_is_wrong_whatever_the_model_says(folder: Path, api: str) -> None:
    dataset = build(folder, test_mode=True)
    sample = dataset[2]
    assert sample['inputs'].shape == dataset[0]['inputs'].shape
    assert not sample['inputs'].any(), 'no model sees another video under its name'
    failed = sample['data_samples']
    assert (failed.failed, failed.filename) == ('it is empty', str(folder / '2.mp4'))
    if api == '1.2.0':
        failed = FailedSample(metainfo=failed.metainfo, gt_label=torch.tensor([2]))
    answer([failed], torch.eye(6)[2:3], api)
    failed = pickle.loads(pickle.dumps(failed.to('cpu').detach()))
    scores = scores_of(failed)
    assert label_of(failed) == 2
    assert scores.argmin() == 2
    assert torch.equal(scores.sum(), torch.tensor(1.0))
    assert 'failed' in failed.to_dict()
    kept = failed.pred_labels.item if api == '1.1.0' else failed.pred_label
    assert kept.tolist() == [0]
    failed.set_field(torch.eye(6)[None, 2].repeat(3, 1), 'view_scores')
    assert failed.view_scores.argmin(-1).tolist() == [2, 2, 2]


def test_the_metric_counts_a_failed_video_as_wrong(folder: Path) -> None:
    """A model that is always right is right in four of six."""
    dataset = build(folder, test_mode=True)
    evaluator = Evaluator(AccMetric(metric_options={'top_k_accuracy': {'topk': (1, 5)}}))
    for index in range(6):
        sample = dataset[index]['data_samples']
        answer([sample], torch.eye(6)[index : index + 1], '1.1.0')
        evaluator.process([sample])
    scores = evaluator.evaluate(6)
    assert scores['acc/top1'] == pytest.approx(4 / 6)
    assert scores['acc/top5'] == pytest.approx(4 / 6)
    assert scores['acc/mean1'] == pytest.approx(4 / 6)


def test_scores_of_the_failed_are_wrong_for_every_kind_of_label() -> None:
    one = wrong_scores(torch.rand(4), torch.tensor([1]))
    assert one.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    several = wrong_scores(torch.rand(4), torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert several.tolist() == pytest.approx([0.5, 0, 0, 0.5])
    unknown = wrong_scores(torch.rand(4), torch.tensor([-1]))
    assert unknown.tolist() == pytest.approx([0.25] * 4)
    only_class = wrong_scores(torch.rand(1), torch.tensor([0]))
    assert only_class.tolist() == [0]
