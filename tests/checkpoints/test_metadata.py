import json

import pytest
import torch

from mmtimesformer.checkpoints import config_differences, read_checkpoint, save_checkpoint
from mmtimesformer.checkpoints.metadata import (
    ModelMetadata,
    Preprocessing,
    find_metadata,
    heads_of,
    metadata_of_config,
)

from .conftest import VIDEO_FILES, WIDTH, as_mmaction2, as_official, random_weights

CONFIG_TEXT = """
model = dict(
    type='Recognizer3D',
    backbone=dict(type='TimeSformer', num_frames=3, img_size=15, num_heads=4),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]))
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=3, frame_interval=32, num_clips=1, test_mode=True),
    dict(type='ThreeCrop', crop_size=15)]
"""
OFFICIAL_CFG = """
TRAIN: {DATASET: kinetics, BATCH_SIZE: 8}
DATA: {MEAN: [0.45, 0.45, 0.45], STD: [0.225, 0.225, 0.225], NUM_FRAMES: 3, SAMPLING_RATE: 32,
       TEST_CROP_SIZE: 15}
TIMESFORMER: {ATTENTION_TYPE: divided_space_time}
"""


def _official(path, cfg=OFFICIAL_CFG, **how):
    torch.save({'model_state': as_official(random_weights(**how)), 'cfg': cfg}, path)
    return path


def test_preprocessing_and_licence_are_read_from_the_official_yaml(tmp_path) -> None:
    metadata = read_checkpoint(_official(tmp_path / 'a.pyth')).describe()
    assert metadata.preprocessing == Preprocessing(
        mean=[0.45] * 3,
        std=[0.225] * 3,
        channel_order='RGB',
        frame_interval=32,
        num_frames=3,
        size=15,
    )
    assert 'CC-BY-NC' in metadata.licence


@pytest.mark.parametrize(
    'cfg', ['TRAIN: {DATASET: Ssv2}', OFFICIAL_CFG.replace('kinetics', 'ssv2')]
)
def test_official_weights_of_something_something_are_bgr(cfg, tmp_path) -> None:
    metadata = read_checkpoint(_official(tmp_path / 'a.pyth', cfg)).describe()
    assert metadata.preprocessing.channel_order == 'BGR'


def test_174_classes_without_a_config_are_taken_for_something_something(tmp_path) -> None:
    weights = random_weights()
    weights['head.weight'], weights['head.bias'] = torch.zeros(174, 20), torch.zeros(174)
    torch.save({'model_state': as_official(weights)}, tmp_path / 'a.pyth')
    metadata = read_checkpoint(tmp_path / 'a.pyth').describe()
    assert metadata.preprocessing.channel_order == 'BGR'


def test_preprocessing_and_classes_are_read_from_mmaction2s_config_text(tmp_path) -> None:
    names = [f'class {i}' for i in range(7)]
    meta = {'cfg': CONFIG_TEXT, 'dataset_meta': {'classes': names}}
    weights = as_mmaction2(random_weights())
    torch.save({'meta': meta, 'state_dict': weights}, tmp_path / 'a.pth')
    metadata = read_checkpoint(tmp_path / 'a.pth').describe()
    assert metadata.preprocessing == Preprocessing(
        mean=[0.5] * 3, std=[0.5] * 3, channel_order='RGB', num_frames=3, frame_interval=32, size=15
    )
    assert metadata.classes == names
    assert metadata.num_heads == 4


def test_metadata_survive_hugging_faces_folder_and_back(tmp_path) -> None:
    names = [f'class {i}' for i in range(7)]
    weights = read_checkpoint(_official(tmp_path / 'a.pyth'))
    save_checkpoint(
        weights, tmp_path / 'hf', 'huggingface', meta={'classes': names, 'num_heads': 4}
    )
    preprocessor = json.loads((tmp_path / 'hf' / 'preprocessor_config.json').read_text())
    assert preprocessor['image_mean'] == [0.45] * 3
    assert preprocessor['crop_size'] == {'height': 15, 'width': 15}
    assert json.loads((tmp_path / 'hf' / 'config.json').read_text())['id2label']['3'] == 'class 3'

    (tmp_path / 'hf' / 'model.safetensors').rename(tmp_path / 'bare')  # without our own meta
    VIDEO_FILES['huggingface'](weights.tensors, tmp_path / 'hf' / 'model.safetensors')
    back = read_checkpoint(tmp_path / 'hf').describe()
    first = weights.describe()
    assert back.preprocessing == first.preprocessing
    assert back.classes == names


@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_metadata_survive_our_own_files(ending, tmp_path) -> None:
    weights = read_checkpoint(_official(tmp_path / 'a.pyth'))
    save_checkpoint(weights, tmp_path / f'b.{ending}')
    metadata = read_checkpoint(tmp_path / f'b.{ending}').describe()
    assert metadata == weights.describe()
    assert metadata.source == 'official'


def test_another_normalisation_in_the_config_is_reported_with_both_values(tmp_path) -> None:
    save_checkpoint(read_checkpoint(_official(tmp_path / 'a.pyth')), tmp_path / 'b.pth')
    checkpoint = torch.load(tmp_path / 'b.pth')
    config = {
        'model': {'data_preprocessor': {'mean': [127.5] * 3, 'std': [127.5] * 3}},
        'test_pipeline': [{'type': 'SampleFrames', 'clip_len': 3, 'frame_interval': 4}],
    }
    message = config_differences(checkpoint, config)
    assert message == [
        'mean: the checkpoint was trained with (0.45, 0.45, 0.45), the config gives '
        '(0.5, 0.5, 0.5)',
        'std: the checkpoint was trained with (0.225, 0.225, 0.225), the config gives '
        '(0.5, 0.5, 0.5)',
        'frame_interval: the checkpoint was trained with 32, the config gives 4',
    ]
    same = {
        'model': {'data_preprocessor': {'mean': [114.75] * 3, 'std': [57.375] * 3}},
        'test_pipeline': [{'type': 'SampleFrames', 'clip_len': 3, 'frame_interval': 32}],
    }
    assert config_differences(checkpoint, same) == []


def test_bgr_weights_under_an_rgb_config_are_reported(tmp_path) -> None:
    path = _official(tmp_path / 'a.pyth', 'TRAIN: {DATASET: ssv2}')
    save_checkpoint(read_checkpoint(path), tmp_path / 'b.pth')
    preprocessor = {'mean': [114.75] * 3, 'std': [57.375] * 3}
    config = {'model': {'data_preprocessor': preprocessor}}
    message = config_differences(torch.load(tmp_path / 'b.pth'), config)
    assert message == ['channel_order: the checkpoint was trained with BGR, the config gives RGB']
    preprocessor['to_rgb'] = True  # MMAction2's name for swapping the channels
    assert config_differences(torch.load(tmp_path / 'b.pth'), config) == []


def test_a_config_text_is_read_as_the_config_itself() -> None:
    from mmengine.config import Config

    from mmtimesformer.checkpoints.metadata import read_literals

    parsed = metadata_of_config(read_literals(CONFIG_TEXT))
    assert parsed == metadata_of_config(Config.fromstring(CONFIG_TEXT, '.py'))


def test_an_unknown_number_of_heads_is_an_error_that_names_the_option() -> None:
    assert heads_of(1280) == 16
    assert heads_of(20, num_heads=4) == 4
    with pytest.raises(
        ValueError, match=r'no ViT has the width 20; give num_heads \(--num-heads\)'
    ):
        heads_of(20)


def test_an_image_vit_without_stated_heads_has_those_of_transformers() -> None:
    found = find_metadata({'config': {'model_type': 'vit'}}, {})
    assert (found.num_heads, found.norm_eps) == (12, 1e-12)
    assert find_metadata({'config': {'architecture': 'vit_small'}}, {}).num_heads is None
    stored = {'mmtimesformer': {'num_heads': 6}}  # of a folder that we wrote
    folder = {'config': {'model_type': 'timesformer'}, 'meta': stored}
    assert find_metadata(folder, {}).num_heads == 6


def test_what_a_file_gives_goes_before_the_habits_of_its_system(tmp_path) -> None:
    cfg = OFFICIAL_CFG.replace('MEAN: [0.45, 0.45, 0.45]', 'MEAN: [0.1, 0.2, 0.3]')
    metadata = read_checkpoint(_official(tmp_path / 'a.pyth', cfg)).describe()
    assert metadata.preprocessing.mean == [0.1, 0.2, 0.3]


def test_values_of_the_wrong_type_are_dropped_or_refused_by_name() -> None:
    values = {'num_frames': 8, 'num_heads': '12', 'note': 'kept', 'preprocessing': {'std': 'x'}}
    metadata = ModelMetadata.parse(values)
    assert metadata == ModelMetadata(num_frames=8, other={'note': 'kept'})
    assert metadata.to_dict() == {'num_frames': 8, 'note': 'kept'}
    for key in ('num_heads', 'preprocessing'):
        what = {'num_heads': 'num_heads', 'preprocessing': 'std'}[key]
        with pytest.raises(ValueError, match=f'has {what}=.*it must be a'):
            ModelMetadata.parse({key: values[key]}, strict=True)


def test_official_weights_get_the_names_of_the_data_set_that_their_config_states(tmp_path) -> None:
    weights = random_weights()
    weights['head.weight'], weights['head.bias'] = torch.randn(174, WIDTH), torch.zeros(174)
    file = {'model_state': as_official(weights), 'cfg': 'TRAIN: {DATASET: ssv2}'}
    torch.save(file, tmp_path / 'a.pyth')
    classes = read_checkpoint(tmp_path / 'a.pyth').describe().classes
    assert classes is not None and classes[173] == 'Wiping something off of something'
    torch.save({**file, 'cfg': OFFICIAL_CFG}, tmp_path / 'b.pyth')  # there is no Kinetics-174
    assert read_checkpoint(tmp_path / 'b.pyth').describe().classes is None
