"""preprocessor_config.json: every key is honoured as in transformers, or refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer.checkpoints.image_processor import ImageProcessor, find_processor
from mmtimesformer.checkpoints.metadata import find_metadata

KNOWN: dict[str, Any] = {
    'image_processor_type': 'VideoMAEImageProcessor',
    'do_resize': True, 'size': {'shortest_edge': 40}, 'resample': 2, 'do_center_crop': True,
    'crop_size': {'height': 32, 'width': 32}, 'do_rescale': True, 'rescale_factor': 1 / 255,
    'do_normalize': True, 'image_mean': [0.45, 0.4, 0.5], 'image_std': [0.225, 0.2, 0.3],
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {},
    {'size': {'height': 36, 'width': 44}},
    {'size': {'shortest_edge': 33}, 'resample': 3},
    {'resample': 0},
    {'resample': 1},
    {'resample': 4},
    {'do_resize': False},
    {'do_center_crop': False, 'size': {'height': 32, 'width': 48}},
    {'crop_size': {'height': 16, 'width': 32}},
    {'rescale_factor': 1 / 127.5},
    {'do_rescale': False, 'image_mean': [100.0, 110.0, 120.0], 'image_std': [60.0, 50.0, 70.0]},
    {'do_normalize': False},
    {'image_mean': None, 'image_std': None},
    {'do_convert_rgb': True},
    {'do_pad': False, 'do_flip_channel_order': None},
]


@pytest.mark.parametrize('shape', [(57, 91), (91, 57), (64, 64)])
@pytest.mark.parametrize('change', CHANGES, ids=str)
def test_pixels_are_those_of_transformers(change: dict[str, Any], shape: tuple[int, int]) -> None:
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    from mmtimesformer.datasets import ProcessorCrop, ProcessorResize

    values = {**KNOWN, **change}
    processor = ImageProcessor.parse(values)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*shape, 3), np.uint8) for _ in range(2)]
    results: dict[str, Any] = {'imgs': frames}
    if processor.resize is not None:
        results = ProcessorResize(processor.resize, processor.resample).transform(results)
    if processor.crop is not None:
        results = ProcessorCrop(processor.crop).transform(results)
    ours = torch.from_numpy(np.stack(results['imgs'])).double()
    ours = (ours / 255 - torch.tensor(processor.mean)) / torch.tensor(processor.std)
    given = {key: value for key, value in values.items() if value is not None}
    theirs = VideoMAEImageProcessorPil(**given)(frames, return_tensors='pt').pixel_values[0]
    scale = max(1.0, float(theirs.abs().max()))
    assert (ours.permute(0, 3, 1, 2) - theirs).abs().max() < 2e-5 * scale
    assert results['img_shape'] == tuple(theirs.shape[-2:]) if 'img_shape' in results else True


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'do_flip_channel_order': True}, "'do_flip_channel_order': True, which may change pixels"),
        ({'offset': True}, "'offset': True, which may change pixels"),
        ({'do_pad': True}, 'do_pad'),
        ({'auto_map': {'AutoImageProcessor': 'x.Y'}}, 'auto_map'),
        ({'some_new_key': 3}, 'some_new_key'),
        ({'image_processor_type': 'VivitImageProcessor'}, 'whose preprocessing is not known'),
        ({'image_processor_type': 'VideoMAEEvilProcessor'}, 'whose preprocessing is not known'),
        ({'size': {'longest_edge': 40}}, 'size='),
        ({'size': {'shortest_edge': 40, 'longest_edge': 80}}, 'size='),
        ({'size': 'large'}, 'size='),
        ({'size': {'shortest_edge': 0}}, 'size='),
        ({'crop_size': {'height': 32}}, 'crop_size='),
        ({'resample': 9}, 'resample=9'),
        ({'resample': 'bicubic'}, "resample='bicubic'"),
        ({'image_std': [0.2, 0.0, 0.2]}, 'image_std='),
        ({'image_mean': ['a', 0, 0]}, 'image_mean='),
        ({'image_mean': [float('nan')] * 3}, 'image_mean='),
        ({'rescale_factor': 0}, 'rescale_factor=0'),
        ({'do_resize': 'yes'}, "do_resize='yes'"),
        ({'image_mean': [0.5, 0.5]}, 'image_mean='),
        ({'frame_interval': '4'}, "frame_interval='4'"),
        ({'frame_interval': 0}, 'frame_interval=0'),
        ({'frame_interval': True}, 'frame_interval=True'),
        ({'sampling': 'uniform'}, "sampling='uniform'"),
        ({'channel_order': 'bgr'}, "channel_order='bgr'"),
        ({'num_frames': 2.5}, 'num_frames=2.5'),
        ({'sampling': 'segments', 'frame_interval': 4}, 'exclude each other'),
    ],
)
def test_a_key_or_value_that_is_not_known_is_an_error(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match='preprocessor_config.json') as error:
        ImageProcessor.parse({**KNOWN, **change})
    assert message in str(error.value)


def test_old_files_give_sizes_as_numbers() -> None:
    old = {
        'feature_extractor_type': 'VideoMAEFeatureExtractor', 'size': 40, 'crop_size': 32,
        'image_mean': [0.45] * 3, 'image_std': [0.225] * 3,
    }  # fmt: skip
    processor = ImageProcessor.parse(old)
    assert (processor.resize, processor.crop) == (40, (32, 32))


def test_what_a_file_leaves_out_is_the_default_of_its_class() -> None:
    """As in transformers 5.23: VideoMAE's and TimeSformer's processors normalise differently."""
    image = ImageProcessor.parse({'image_processor_type': 'VideoMAEImageProcessor'})
    video = ImageProcessor.parse({'video_processor_type': 'TimesformerVideoProcessor'})
    assert (image.mean, image.resize, image.crop) == ((0.5,) * 3, 224, (224, 224))
    assert video.mean == (0.485, 0.456, 0.406)


def test_two_files_that_differ_are_an_error() -> None:
    other = {**KNOWN, 'image_mean': [0.5] * 3}
    extras = {'preprocessor_config': KNOWN, 'video_preprocessor_config': other}
    with pytest.raises(ValueError, match=r'mean=\(0.45.*video_preprocessor_config.json.*\(0.5'):
        find_processor(extras, 'folder')
    assert find_processor({**extras, 'video_preprocessor_config': KNOWN}, 'folder') is not None
    assert find_processor({}, 'folder') is None


def test_labels_whose_keys_are_not_rows_name_no_class(tmp_path: Path) -> None:
    config = {'model_type': 'timesformer', 'id2label': {'1': 'a', '2': 'b'}}
    assert find_metadata({'config': config}, {}).classes is None
    config['id2label'] = {'1': 'b', '0': 'a', '10': 'k'} | {str(i): str(i) for i in range(2, 10)}
    assert find_metadata({'config': json.loads(json.dumps(config))}, {}).classes == [
        'a', 'b', *map(str, range(2, 10)), 'k',
    ]  # fmt: skip


def test_another_activation_is_refused() -> None:
    config = {'model_type': 'timesformer', 'hidden_act': 'gelu_new'}
    with pytest.raises(ValueError, match="hidden_act='gelu_new'"):
        find_metadata({'config': config}, {})
