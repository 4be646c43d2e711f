"""The preprocessing that a checkpoint states, put into a config of another."""

from typing import Any

import pytest

from mmtimesformer.checkpoints.preprocessing import Stated, short_side

MODEL = {
    'backbone': {'num_frames': 8, 'img_size': 224},
    'data_preprocessor': {
        'type': 'ActionDataPreprocessor', 'mean': [127.5] * 3, 'std': [127.5] * 3, 'to_rgb': False,
    },
}  # fmt: skip
STEPS: list[dict[str, Any]] = [
    {'type': 'SampleFrames', 'clip_len': 8, 'frame_interval': 32, 'test_mode': True},
    {'type': 'Resize', 'scale': (-1, 256)},
    {'type': 'ThreeCrop', 'crop_size': 224},
]


def stated(**preprocessing: Any) -> Stated:
    metadata = {'preprocessing': preprocessing, 'num_frames': 8, 'img_size': [224, 224]}
    return Stated.by({'meta': {'mmtimesformer': metadata}}, 'a.pth')


def applied(one: Stated, **backbone: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    model = {**MODEL, 'backbone': {**MODEL['backbone'], **backbone}}
    return model, one.apply_to(model, STEPS)


def test_mean_std_colours_and_interval_are_the_checkpoints() -> None:
    one = stated(mean=[0.45] * 3, std=[0.225] * 3, channel_order='BGR', frame_interval=4)
    model, steps = applied(one)
    assert model['data_preprocessor']['mean'] == pytest.approx([114.75] * 3)
    assert model['data_preprocessor']['to_rgb'] is True
    assert [steps[0]['frame_interval'], *steps[1:]] == [4, *STEPS[1:]]
    assert one.differences({'model': model, 'test_pipeline': steps}) == []
    assert MODEL['data_preprocessor']['mean'] == [127.5] * 3  # the given one is left alone


def test_sampling_becomes_segments_and_back() -> None:
    one = stated(sampling='segments')
    model, steps = applied(one)
    assert steps[0]['type'] == 'mmtimesformer.SegmentSampleFrames'
    back = stated(frame_interval=16).apply_to(model, steps)
    assert (back[0]['type'], back[0]['frame_interval']) == ('mmtimesformer.WindowSampleFrames', 16)


def test_another_size_scales_crop_and_resize() -> None:
    model, steps = applied(stated(size=112))
    assert (steps[1]['scale'], steps[2]['crop_size']) == ((-1, 128), 112)
    assert short_side(steps) == 128
    assert model['backbone']['img_size'] == 224


def test_frames_and_size_of_a_model_that_was_changed_on_purpose_stay() -> None:
    one = stated(frame_interval=4, num_frames=8, size=112)
    _, steps = applied(one, num_frames=16, img_size=448)
    assert steps == STEPS


def test_a_config_without_our_normalisation_is_an_error() -> None:
    with pytest.raises(ValueError, match='no data_preprocessor of the type ActionDataPreprocessor'):
        stated(mean=[0.45] * 3).apply_to({'backbone': {}}, STEPS)


def test_a_state_dict_states_nothing() -> None:
    assert Stated.by({}, 'a.pth').differences({'model': MODEL, 'test_pipeline': STEPS}) == []
