"""A config inside a checkpoint cannot ask for memory or loops without bound."""

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmaction.registry import MODELS
from mmaction.utils import register_all_modules
from mmengine.registry import DefaultScope

from mmtimesformer.checkpoints import read_file
from mmtimesformer.inference import VideoClassifier

MODEL = (
    "model = dict(type='Recognizer3D', backbone=dict(type='mmtimesformer.TimeSformer', "
    'num_frames=4, img_size=32, patch_size=16, embed_dims=24, num_layers=2, num_heads=2, '
    "drop_path_rate=0.1), cls_head=dict(type='TimeSformerHead', num_classes=3, in_channels=24, "
    "average_clips='prob'), data_preprocessor=dict(type='ActionDataPreprocessor', "
    "mean=[127.5, 127.5, 127.5], std=[64.0, 64.0, 64.0], format_shape='NCTHW'))\n"
)
PIPELINE = (
    "test_pipeline = [dict(type='mmtimesformer.VideoInit', reader='pyav'), "
    "dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=1, test_mode=True), "
    "dict(type='mmtimesformer.VideoDecode'), dict(type='Resize', scale=(-1, 32)), "
    "dict(type='ThreeCrop', crop_size=32), dict(type='FormatShape', input_format='NCTHW'), "
    "dict(type='PackActionInputs')]\n"
)


@pytest.fixture(scope='module')
def weights() -> dict[str, torch.Tensor]:
    register_all_modules(init_default_scope=False)
    values: dict[str, Any] = {}
    exec(MODEL, values)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return MODELS.build(values['model']).state_dict()


@pytest.fixture
def stored(weights: dict[str, torch.Tensor], tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a checkpoint whose config differs in one place."""

    def write(old: str, new: str) -> Path:
        text = MODEL + PIPELINE
        assert old in text
        path = tmp_path / 'epoch_1.pth'
        torch.save({'meta': {'cfg': text.replace(old, new)}, 'state_dict': weights}, path)
        return path

    return write


def test_what_is_changed_below_is_read(stored: Callable[[str, str], Path]) -> None:
    assert VideoClassifier(checkpoint=stored('=2,', '=2,')).num_classes == 3


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('clip_len=4', 'clip_len=200000000', 'clip_len=200000000, and at most 65,536'),
        ('clip_len=4', 'clip_len=60000', 'clip_len=60000, and num_frames=4 takes at most 64'),
        ('num_clips=1', 'num_clips=10**9', 'holds code'),
        ('num_clips=1', 'num_clips=60000, x=60000', 'has [0-9,]+ pixels'),
        ('num_clips=1', 'num_clips=1e308', r'num_clips=1e\+308, and at most'),
        ('num_clips=1', 'num_clips=1e999', r'num_clips=inf, and at most'),
        ('frame_interval=2', 'frame_interval=999999999', 'frame_interval=999999999'),
        ('scale=(-1, 32)', 'scale=(-1, 60000)', 'has [0-9,]+ pixels'),
        ('scale=(-1, 32)', 'scale=(-1, 10000000000)', 'scale=10000000000'),
        ('crop_size=32', 'crop_size=50000', 'has [0-9,]+ pixels'),
        ('num_layers=2', 'num_layers=100000000', 'num_layers=100000000'),
        ('num_layers=2', 'num_layers=60000', 'num_layers=60000, and its weights have 2'),
        ('num_layers=2, ', '', 'num_layers=12, and its weights have 2'),
        ('embed_dims=24', 'embed_dims=1000000000', 'embed_dims=1000000000'),
        ('embed_dims=24', 'embed_dims=48000', 'embed_dims=48000, and its weights have 24'),
        ('num_frames=4', 'num_frames=60000', 'num_frames=60000, and its weights have 4'),
        ('num_frames=4', 'num_frames=dict(a=1)', 'num_frames=a dict, '),
        ('patch_size=16', 'patch_size=8192', 'patch_size=8192, and its weights have 16'),
        ('num_classes=3', 'num_classes=60000', 'num_classes=60000, and its weights have 3'),
        ('img_size=32', 'img_size=65536', 'describes a model of more than'),
        ('num_heads=2', 'num_heads=2, mlp_ratio=60000.0', 'describes a model of more than'),
        (
            "cls_head=dict(type='TimeSformerHead'",
            "neck=dict(type='TimeSformerHead', num_classes=60000, in_channels=60000), "
            "cls_head=dict(type='TimeSformerHead'",
            'describes a model of more than',
        ),
        ('scale=(-1, 32)', 'scale=900.0', 'has [0-9,]+ pixels'),
        ("'SampleFrames'", "'DenseSampleFrames', num_sample_positions=65000", 'has [0-9,]+ pix'),
        ("reader='pyav'", "reader='pyav', num_threads=60000", 'num_threads=60000, and at most 64'),
        ('num_heads=2', 'num_heads=' + '9' * 5000, 'cannot be read|at most 65,536'),
        ('drop_path_rate=0.1', 'drop_path_rate=' + '-' * 6000 + '1', 'operators|program|read'),
        ('drop_path_rate=0.1', 'x=' + '[' * 150 + ']' * 150, 'read|nested|program|unexpected'),
    ],
)
def test_a_number_out_of_proportion_is_refused(
    stored: Callable[[str, str], Path], old: str, new: str, message: str
) -> None:
    path = stored(old, new)
    begun, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, TypeError), match=message):
        VideoClassifier(checkpoint=path)
    assert time.process_time() - begun < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 << 10


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('frame_interval=2', 'frame_interval=0', 'frame_interval=0, and it must be a whole number'),
        ('frame_interval=2', 'frame_interval=-5', 'frame_interval=-5, and'),
        ('num_clips=1', "num_clips='1'", "num_clips='1', and"),
        ('crop_size=32', 'crop_size=-32', 'crop_size=-32, and'),
        ('std=[64.0, 64.0, 64.0]', 'std=[0, 0, 0]', 'std with a value that is not above 0'),
        ('mean=[127.5, 127.5, 127.5]', "mean=[1, 'a', []]", 'mean=a list, and'),
        ('num_heads=2', "num_heads='a'", 'describes no model'),
        ('drop_path_rate=0.1', 'mlp_ratio=-2.0', 'describes no model'),
        ('drop_path_rate=0.1', 'foo=1', 'describes no model'),
        ('test_pipeline = [', 'test_pipeline = 5; x = [', 'test_pipeline=5, and'),
        ('test_pipeline = [', "test_pipeline = ['a']; x = [", 'test_pipeline=a list, and'),
        ('test_pipeline', 'test_dataloader = [1]; test_pipeline', 'test_dataloader=a list, and'),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(
    stored: Callable[[str, str], Path], old: str, new: str, message: str
) -> None:
    with pytest.raises(ValueError, match=f'the config in .*{message}') as caught:
        VideoClassifier(checkpoint=stored(old, new))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ("dict(type='Resize', scale=(-1, 32))", "dict(type='TorchVisionWrapper', op='Resize')"),
        ("dict(type='Resize', scale=(-1, 32))", "dict(type='mmcv.Pad', size_divisor=65536)"),
        ("dict(type='Resize', scale=(-1, 32))", "dict(type='RawFrameDecode')"),
        ("'SampleFrames', clip_len=4, ", "'UntrimmedSampleFrames', clip_len=4, "),
        ('cls_head=', "neck=dict(type='mmaction.UniFormerV2'), cls_head="),
        ('cls_head=', "neck=dict(type='CLIPSimilarity', clip_arch='x'), cls_head="),
    ],
)
def test_a_component_that_no_test_of_timesformer_needs_is_refused(
    stored: Callable[[str, str], Path], old: str, new: str
) -> None:
    with pytest.raises(ValueError, match='has type=.* which is not a registered component that'):
        VideoClassifier(checkpoint=stored(old, new))


def test_a_stored_head_makes_no_folder(stored: Callable[[str, str], Path], tmp_path: Path) -> None:
    head = f"type='LFBInferHead', lfb_prefix_path='{tmp_path / 'made'}'"
    with pytest.raises(ValueError, match='LFBInferHead'):
        VideoClassifier(
            checkpoint=stored("cls_head=dict(type='TimeSformerHead'", f'cls_head=dict({head}')
        )
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize('text', ['x = 1\n' * 10**5, 'x = ' + 'a' + '.a' * 50_000, '(' * 10**5])
def test_a_text_without_end_is_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path, text: str
) -> None:
    path = tmp_path / 'epoch_1.pth'
    torch.save({'meta': {'cfg': text + PIPELINE}, 'state_dict': weights}, path)
    begun = time.process_time()
    with pytest.raises(ValueError, match='epoch_1.pth'):
        VideoClassifier(checkpoint=path)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('num_heads', [1]), ('num_heads', 10**9), ('num_heads', 'x' * 10**6), ('norm_eps', 'x'),
        ('img_size', [1, 2, 3]), ('classes', 'abc'), ('classes', [1]), ('num_frames', -1),
        ('preprocessing', [1]), ('preprocessing', {'mean': 'x'}), ('preprocessing', {'size': 0}),
        ('preprocessing', {'std': [1] * 1000}), ('preprocessing', {'frame_interval': 10**9}),
        ('attention_type', 3),
    ],
)  # fmt: skip
def test_metadata_of_a_wrong_kind_are_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / 'converted.pth'
    meta = json.loads(json.dumps({key: value}))
    torch.save({'meta': {'mmtimesformer': meta}, 'state_dict': weights}, path)
    with pytest.raises(ValueError, match=r'converted.pth is refused: the metadata .* must be'):
        read_file(path)
