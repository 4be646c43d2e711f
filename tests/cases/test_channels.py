"""Inputs of one or many channels: weights, transforms, checks, training and prediction."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmaction.registry import MODELS
from mmaction.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints import load_checkpoint
from mmtimesformer.checkpoints.load import adapt_contents
from mmtimesformer.checkpoints.readers import Contents
from mmtimesformer.config.validate import check_config
from mmtimesformer.datasets import AppendChannels, ArrayDecode, ArrayInit, ToGrey
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.errors import UnreadableVideo
from mmtimesformer.export import FORMATS
from mmtimesformer.inference import VideoClassifier
from tests.cases.test_multi_label import tool
from tests.tools.conftest import TEXT
from tests.tools.test_export import needs_onnx

SIZES: dict[str, Any] = {
    'num_frames': 3, 'img_size': 16, 'patch_size': 8, 'embed_dims': 28, 'num_layers': 1,
    'num_heads': 4,
}  # fmt: skip
CHANNELS = """
model['backbone']['in_channels'] = {channels}
model['data_preprocessor'].update(mean=[100.0] * {channels}, std=[50.0] * {channels})
_resize = dict(type='mmtimesformer.ShortSideResize', size=32)
_end = [dict(type='mmtimesformer.UniformCrops', crop_size=32, num_crops=1),
        dict(type='mmtimesformer.FormatClips'), dict(type='PackActionInputs')]
_loaders = ((train_dataloader, train_pipeline[1]), (test_dataloader, test_pipeline[1]))
for _loader, _sampler in _loaders:
    _loader['dataset'].update(type='mmtimesformer.VideoDataset')
    _loader['dataset']['pipeline'] = [{first}, _sampler, {decode}, _resize, *_end]
val_dataloader = test_dataloader
del _loader, _loaders, _sampler, _resize, _end
"""
GREY = {
    'channels': 1,
    'first': "dict(type='mmtimesformer.VideoInit')",
    'decode': "dict(type='mmtimesformer.VideoDecode'), dict(type='mmtimesformer.ToGrey')",
}
DEPTH = GREY | {
    'channels': 4,
    'decode': "dict(type='mmtimesformer.VideoDecode'), "
    "dict(type='mmtimesformer.AppendChannels', suffix='_depth.npy')",
}
ARRAYS = {
    'channels': 5,
    'first': "dict(type='mmtimesformer.ArrayInit', channels=5)",
    'decode': "dict(type='mmtimesformer.ArrayDecode')",
}


def write_config(folder: Path, videos: Path, kind: dict[str, Any]) -> Path:
    """A config whose lists name videos with a depth file, or arrays."""
    rng = np.random.default_rng(0)
    ending = 'npy' if kind is ARRAYS else 'mp4'
    for i in range(6):
        if kind is ARRAYS:
            array = rng.integers(0, 255, (20, 64, 96, 5)).astype(np.float32)
            np.save(folder / f'{i}.npy', array)
        else:
            (folder / f'{i}.mp4').write_bytes((videos / f'{i}.mp4').read_bytes())
            depth = rng.integers(0, 255, (20, 64, 96, 1), dtype=np.uint8)
            np.save(folder / f'{i}_depth.npy', depth)
    for split in ('train', 'val'):
        lines = (videos / f'{split}.txt').read_text().replace('mp4', ending)
        (folder / f'{split}.txt').write_text(lines)
    more = CHANNELS.format(**kind)
    path = folder / 'config.py'
    text = TEXT.replace('{videos}', str(folder))
    path.write_text(f'{text}{more}experiment_name = {folder.name!r}\n')
    return path


@pytest.mark.parametrize('kind', [GREY, DEPTH, ARRAYS], ids=['grey', 'depth', 'arrays'])
def test_training_test_prediction_and_features(
    tiny_videos: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    config, work = write_config(tmp_path, tiny_videos, kind), tmp_path / 'work'
    code, output = tool('train', config, '--work-dir', work, '--seed', 0)
    assert code == 0, output
    code, output = tool('test', config, work / 'epoch_1.pth', '--work-dir', work)
    assert code == 0, output
    video = tmp_path / ('3.npy' if kind is ARRAYS else '3.mp4')
    classifier = VideoClassifier(checkpoint=work / 'epoch_1.pth')
    assert classifier.clips(video).shape[1] == kind['channels']
    assert sum(classifier(video).all_scores) == pytest.approx(1)
    assert classifier.features(video).shape == (1, 24)
    array = frames_of(tmp_path, kind)
    assert classifier(array).all_scores == pytest.approx(classifier(video).all_scores, abs=1e-4)
    with pytest.raises(ValueError, match=rf'an array \(t, H, W, {array.shape[-1]}\) of uint8'):
        classifier(array[..., :2])
    if kind is DEPTH:
        with pytest.raises(ValueError, match='sliding windows take no second file'):
            classifier.timeline(video, window=0.5)


def frames_of(folder: Path, kind: dict[str, Any]) -> np.ndarray:
    """The fourth video as an array, with all its channels."""
    if kind is ARRAYS:
        return np.load(folder / '3.npy')
    video = Video(folder / '3.mp4')
    frames = np.stack(video.frames(list(range(len(video)))))
    if kind is GREY:
        return frames
    return np.concatenate([frames, np.load(folder / '3_depth.npy')], axis=-1)


@pytest.mark.parametrize('format', ['torch-export', pytest.param('onnx', marks=needs_onnx)])
@pytest.mark.parametrize(
    'kind',
    [GREY, pytest.param(DEPTH, marks=pytest.mark.slow), ARRAYS],
    ids=['grey', 'depth', 'arrays'],
)
def test_a_model_of_other_channels_is_exported(
    tiny_videos: Path, tmp_path: Path, kind: dict[str, Any], format: str
) -> None:
    """The tool compares the file with PyTorch on clips of these channels."""
    cfg = Config.fromfile(write_config(tmp_path, tiny_videos, kind))
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    checkpoint = tmp_path / 'trained.pth'
    torch.save({'meta': {'cfg': cfg.pretty_text}, 'state_dict': model.state_dict()}, checkpoint)
    out = tmp_path / f'exported{FORMATS[format].ending}'
    code, said = tool('export', checkpoint, '--format', format, '--out', out)
    assert code == 0, said
    _, stored = FORMATS[format].read(out)
    assert stored['input']['shape'][-4] == kind['channels'] and stored['input']['colour'] is None
    raw = tmp_path / f'raw{out.suffix}'
    code, said = tool(
        'export', checkpoint, '--format', format, '--with-preprocessing', '--out', raw
    )
    assert (code == 0) == (kind is not ARRAYS), said
    assert kind is not ARRAYS or 'array files (ArrayInit) have any numbers' in said


def rgb() -> TimeSformer:
    return TimeSformer(**SIZES)


@pytest.mark.parametrize('channels', [1, 2, 4, 7])
def test_weights_of_rgb_become_those_of_other_channels(channels: int) -> None:
    source, model = rgb(), TimeSformer(**SIZES, in_channels=channels)
    adapted = adapt_contents(Contents('torch', dict(source.state_dict())), model)
    (entry,) = (e for e in adapted.load_report.entries if e.action == 'adapted')
    assert 'patch_embed.proj.weight' in str(entry.to)
    model.load_state_dict(adapted.complete(model))
    has, got = source.patch_embed.proj.weight, model.patch_embed.proj.weight
    if channels == 1:
        grey = torch.randn(2, 1, 3, 16, 16)
        assert torch.allclose(model(grey), source(grey.expand(-1, 3, -1, -1, -1)), atol=1e-5)
        return
    for i in range(channels):
        assert torch.allclose(got[:, i], has[:, i % 3] * 3 / channels)


def test_a_file_is_adapted_too_and_reported(tmp_path: Path) -> None:
    torch.save(rgb().state_dict(), tmp_path / 'rgb.pth')
    model = TimeSformer(**SIZES, in_channels=4)
    with pytest.warns(UserWarning, match='in_channels=4'):
        report = load_checkpoint(model, tmp_path / 'rgb.pth')
    assert 'multiplied by 3/4' in report.table()


def test_grey_is_the_luma_and_appended_channels_are_those_of_the_same_frames(
    tmp_path: Path,
) -> None:
    frames = np.random.default_rng(1).integers(0, 255, (9, 8, 10, 5), dtype=np.uint8)
    grey = ToGrey()(dict(imgs=[frames[0, ..., :3]]))['imgs'][0]
    luma = frames[0, ..., :3] @ [0.299, 0.587, 0.114]
    assert grey.shape == (8, 10, 1) and np.abs(grey[..., 0] - luma).max() <= 1
    np.save(tmp_path / 'a_depth.npy', frames[..., 3:])
    indices = np.array([2, 2, 8])
    results = dict(
        filename=str(tmp_path / 'a.mp4'), frame_inds=indices, total_frames=9,
        imgs=[frames[i, ..., :3] for i in indices],
    )  # fmt: skip
    found = AppendChannels('_depth.npy', channels=2)(results)['imgs']
    assert all((a == frames[i]).all() for a, i in zip(found, indices, strict=True))


@pytest.mark.parametrize(
    ('array', 'words'),
    [
        (np.zeros((4, 8, 8, 2), np.uint8), 'it has 2 channels and ArrayInit.channels is 3'),
        (np.zeros((4, 8, 8), np.uint8), r'it has shape \(4, 8, 8\)'),
        (np.zeros((4, 8, 8, 3)), 'numbers of float64'),
        (np.full((4, 8, 8, 3), np.nan, np.float32), 'NaN or infinite'),
        (np.array([{}]), 'not an array of numbers'),
    ],
)
def test_an_array_that_is_no_video_is_refused(array: Any, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / 'a.npy', array)
    read = Compose([ArrayInit(channels=3), ArrayDecode()])
    with pytest.raises(UnreadableVideo, match=words):
        read(dict(filename=str(tmp_path / 'a.npy'), frame_inds=np.arange(2)))
    with pytest.raises(UnreadableVideo, match='does not exist'):
        read(dict(filename=str(tmp_path / 'b.npy'), frame_inds=np.arange(2)))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'model.data_preprocessor.mean': [1.0] * 3}, 'mean has 3 numbers and .*in_channels=1'),
        ({'model.data_preprocessor.to_rgb': True}, 'to_rgb=True swaps three channels'),
        ({'model.backbone.in_channels': 3}, 'in_channels=3'),
        ({'train_dataloader.dataset.pipeline.4.type': 'Resize'}, 'takes the last axis off'),
    ],
)
def test_channels_that_differ_are_refused_before_the_start(
    tiny_videos: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    cfg = Config.fromfile(write_config(tmp_path, tiny_videos, GREY))
    if '.pipeline.' in str(change):
        cfg.train_dataloader.dataset.pipeline[4] = dict(type='Resize', scale=(32, 32))
    else:
        cfg.merge_from_dict(change)
    with pytest.raises(ValueError, match=words):
        check_config(cfg, 'train')
