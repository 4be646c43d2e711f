"""Several clips of one decoding are several samples, and a training counts them rightly."""
# ruff: noqa: NPY002  (the global state is what transforms draw from)

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmaction.datasets.transforms import FormatShape
from mmengine.registry import TRANSFORMS
from torch import nn

from mmtimesformer.compat.data_samples import label_of
from mmtimesformer.datasets import FormatClips, RepeatClips, Video, collate_clips
from mmtimesformer.datasets.video_dataset import VideoDataset
from mmtimesformer.engine.loops.clips_per_video import with_clips_per_video
from mmtimesformer.engine.runner import Runner

PIPELINE: list[dict[str, Any]] = [
    dict(type='mmtimesformer.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=3, frame_interval=2, num_clips=2),
    dict(type='mmtimesformer.VideoDecode'),
    dict(type='mmaction.RandomCrop', size=48),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmtimesformer.FormatClips'),
    dict(type='mmaction.PackActionInputs', meta_keys=('img_shape', 'flip', 'frame_inds')),
]


def start(folder: Path) -> dict[str, Any]:
    return dict(
        filename=str(folder / '0.mp4'), label=1, start_index=0, modality='RGB', test_mode=False
    )


def alone(pipeline: list[dict[str, Any]], results: dict[str, Any]) -> dict[str, Any]:
    for step in pipeline:
        results = TRANSFORMS.build(step)(results)
    return results


def test_one_clip_is_what_the_pipeline_gives(tiny_videos: Path) -> None:
    np.random.seed(3)
    wanted = alone(PIPELINE, start(tiny_videos))
    np.random.seed(3)
    (clip,) = RepeatClips(1, PIPELINE)(start(tiny_videos))
    assert torch.equal(clip['inputs'], wanted['inputs'])
    assert clip['data_samples'].metainfo['flip'] == wanted['data_samples'].metainfo['flip']


@pytest.mark.parametrize('reader', ['mmtimesformer.Video', 'mmaction.Decord'])
def test_each_clip_has_its_own_time_and_place(tiny_videos: Path, reader: str) -> None:
    """Frames and flips match the metadata of each clip, though all clips are decoded as one."""
    pipeline = copy.deepcopy(PIPELINE)
    pipeline[0]['type'], pipeline[2]['type'] = f'{reader}Init', f'{reader}Decode'
    pipeline[3] = dict(type='mmaction.CenterCrop', crop_size=64)
    np.random.seed(0)
    clips = RepeatClips(6, pipeline)(start(tiny_videos))
    facts = [clip['data_samples'].metainfo for clip in clips]
    assert len({tuple(np.ravel(fact['frame_inds'])) for fact in facts}) > 2
    assert {bool(fact['flip']) for fact in facts} == {True, False}
    frames = Video(tiny_videos / '0.mp4', 'decord' if 'Decord' in reader else 'pyav').frames(
        range(20)
    )
    for clip, fact in zip(clips, facts, strict=True):
        assert clip['inputs'].shape == (2, 3, 3, 64, 64)
        for shown, number in zip(
            clip['inputs'].transpose(1, 2).flatten(0, 1), np.ravel(fact['frame_inds']), strict=True
        ):
            picture = frames[number][:, 16:80]
            picture = picture[:, ::-1] if fact['flip'] else picture
            assert np.array_equal(shown.permute(1, 2, 0).numpy(), picture)


def test_a_video_is_opened_and_decoded_once(
    tiny_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[int]] = []
    opened: list[str] = []
    frames, init = Video.frames, Video.__init__
    monkeypatch.setattr(
        Video, '__init__', lambda self, path, *args: opened.append(path) or init(self, path, *args)
    )
    monkeypatch.setattr(
        Video, 'frames', lambda self, wanted: calls.append(list(wanted)) or frames(self, wanted)
    )
    RepeatClips(8, PIPELINE)(start(tiny_videos))
    assert len(opened) == 1
    (wanted,) = calls
    assert wanted == sorted(set(wanted)), 'in order, and none twice'


def test_a_video_that_gives_nothing_gives_no_clip(tiny_videos: Path) -> None:
    for place in (0, 1, 3, 7):
        pipeline: list[Any] = list(PIPELINE)
        pipeline.insert(place, lambda results: None)
        assert RepeatClips(2, pipeline)(start(tiny_videos)) is None


def test_a_bad_video_is_replaced_by_clips_of_another(tiny_videos: Path, tmp_path: Path) -> None:
    (tmp_path / 'bad.mp4').write_bytes(b'')
    shutil.copy(tiny_videos / '0.mp4', tmp_path)
    (tmp_path / 'list.txt').write_text('bad.mp4 3\n0.mp4 5\n')
    dataset = VideoDataset(
        ann_file=str(tmp_path / 'list.txt'),
        data_prefix=dict(video=str(tmp_path)),
        pipeline=[dict(type='mmtimesformer.RepeatClips', clips_per_video=2, transforms=PIPELINE)],
    )
    one, other = (clip['data_samples'] for clip in dataset[0])
    assert label_of(one) == label_of(other) == 5
    assert one.replaces[0]['file'].endswith('bad.mp4')


def test_a_pipeline_that_does_not_decode_is_refused() -> None:
    with pytest.raises(ValueError, match='clips_per_video=2 needs .* it has FormatClips'):
        RepeatClips(2, [dict(type='mmtimesformer.FormatClips')])
    with pytest.raises(ValueError, match='clips_per_video=0'):
        RepeatClips(0, PIPELINE)


def test_clips_of_a_video_stand_side_by_side() -> None:
    assert collate_clips([[{'x': 1}, {'x': 2}], [{'x': 3}]]) == {'x': [1, 2, 3]}
    assert collate_clips([{'x': 1}, {'x': 2}], collate=len) == 2


@pytest.mark.parametrize('kind', [np.uint8, np.float32])
@pytest.mark.parametrize(('crops', 'num_clips', 'clip_len'), [(1, 1, 5), (3, 2, 2)])
def test_clips_are_formatted_as_mmaction2_does(
    kind: type, crops: int, num_clips: int, clip_len: int
) -> None:
    rng = np.random.default_rng(0)
    frames = [
        rng.integers(0, 255, (9, 14, 3)).astype(kind)[:, 1:12]
        for _ in range(crops * num_clips * clip_len)
    ]
    results = dict(imgs=frames, num_clips=num_clips, clip_len=clip_len)
    ours = FormatClips()(dict(results))
    theirs = FormatShape(input_format='NCTHW')(dict(results))
    assert np.array_equal(ours['imgs'], theirs['imgs'])
    assert ours['imgs'].dtype == kind
    assert ours['input_shape'] == theirs['input_shape'] == (crops * num_clips, 3, clip_len, 9, 11)
    assert ours['imgs'].flags.c_contiguous


def test_frames_that_make_no_clip_are_named() -> None:
    square, wide = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)
    with pytest.raises(ValueError, match=r'\(4, 4, 3\) and \(4, 6, 3\) make no clip'):
        FormatClips()(dict(imgs=[square, wide], num_clips=1, clip_len=2))
    with pytest.raises(ValueError, match='3 frames do not make up clips of 2'):
        FormatClips()(dict(imgs=[square] * 3, num_clips=1, clip_len=2))


class Mean(nn.Module):
    """A model of one weight that keeps the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[Any] = []

    def train_step(self, data: dict[str, Any], optim_wrapper: Any) -> dict[str, Any]:
        names = [sample.metainfo['filename'].rpartition('/')[2] for sample in data['data_samples']]
        self.seen.append((names, [int(clip.sum()) for clip in data['inputs']]))
        loss = (self.weight - torch.stack(data['inputs']).float().mean() / 255) ** 2
        optim_wrapper.update_params(loss)
        return {'loss': loss.detach()}


def train(folder: Path, work_dir: Path, epochs: int = 2, **config: Any) -> list[Any]:
    """Train on six videos: 4 clips a step, 2 of each video."""
    pipeline = [*PIPELINE[:-1], dict(type='mmaction.PackActionInputs', meta_keys=('filename',))]
    (work_dir / 'all.txt').write_text(''.join(f'{i}.mp4 {i % 2}\n' for i in range(6)))
    model = Mean()
    runner = Runner(
        model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=4,
            clips_per_video=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(
                type='mmaction.VideoDataset',
                ann_file=str(work_dir / 'all.txt'),
                data_prefix=dict(video=str(folder)),
                pipeline=pipeline,
            ),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        auto_scale_lr=dict(enable=True, base_batch_size=8),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        randomness=dict(seed=1),
        experiment_name=f'{work_dir.name}_{epochs}_{len(config)}',  # one name a second for MMEngine
        **config,
    )
    runner.train()
    return model.seen


def test_an_epoch_takes_every_clip_of_every_video(tiny_videos: Path, tmp_path: Path) -> None:
    seen = train(tiny_videos, tmp_path)
    assert len(seen) == 6, 'two epochs of 6 videos x 2 clips / 4 clips a step'
    for epoch in (seen[:3], seen[3:]):
        assert sorted(name for names, _ in epoch for name in names) == sorted(
            f'{i}.mp4' for i in range(6) for _ in range(2)
        )
    for names, sums in seen:
        assert names[0] == names[1] != names[2] == names[3]
        assert len(set(sums)) == 4, 'no clip twice'
    assert seen[:3] != seen[3:]
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert '2 clips per video: a batch of 4 clips has 2 videos' in log
    assert 'lr 0.1 -> 0.05: one step sees 4 clips' in log


def test_a_training_that_goes_on_sees_the_same_clips(tiny_videos: Path, tmp_path: Path) -> None:
    (tmp_path / 'whole').mkdir()
    (tmp_path / 'parts').mkdir()
    whole = train(tiny_videos, tmp_path / 'whole')
    first = train(tiny_videos, tmp_path / 'parts', epochs=1)
    second = train(tiny_videos, tmp_path / 'parts', resume=True)
    assert first + second == whole


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(clips_per_video=3), 'batch_size=8 is not divisible by clips_per_video=3'),
        (dict(clips_per_video='4'), "clips_per_video='4' is not a positive whole number"),
        (dict(dataset=dict(type='X')), 'needs a data set with a pipeline'),
        (dict(dataset=dict(test_mode=True, pipeline=PIPELINE)), 'is for training; .* num_clips'),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    config = dict(batch_size=8, clips_per_video=4, dataset=dict(pipeline=PIPELINE))
    with pytest.raises(ValueError, match=message):
        with_clips_per_video({**config, **change})


def test_one_clip_per_video_changes_nothing() -> None:
    config = dict(batch_size=8, dataset=dict(pipeline=PIPELINE))
    assert with_clips_per_video({**config, 'clips_per_video': 1}) == config


def test_data_sets_within_data_sets_are_reached() -> None:
    inner = dict(type='A', pipeline=PIPELINE)
    config = dict(
        batch_size=8,
        clips_per_video=2,
        collate_fn=dict(type='default_collate'),
        dataset=dict(type='R', dataset=dict(type='C', datasets=[inner, inner])),
    )
    changed = with_clips_per_video(config)
    for part in changed['dataset']['dataset']['datasets']:
        assert part['pipeline'][0]['type'] == 'mmtimesformer.RepeatClips'
        assert part['pipeline'][0]['transforms'] == PIPELINE
    batch = [[{'x': torch.ones(2)}] * 2] * 4
    assert collate_clips(batch, **{k: v for k, v in changed['collate_fn'].items() if k != 'type'})[
        'x'
    ].shape == (8, 2)
    assert config['clips_per_video'] == 2, 'the config is left as it was'
