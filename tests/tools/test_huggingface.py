"""A Hugging Face folder with predict, test, train and finetune, as a user starts them."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtimesformer.analysis.predictions import read_predictions
from mmtimesformer.checkpoints import load_torch
from tests.inference.hub_folders import CLASSES, save_hub_folder

from .conftest import TEXT
from .test_predict import Tool, tool  # noqa: F401  (a fixture)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_hub_folder(tmp_path / 'folder')
    return tmp_path / 'folder'


def write_config(path: Path, videos: Path, classes: int = 3) -> Path:
    text = TEXT.replace('{videos}', str(videos)).replace('num_layers=1', 'num_layers=2')
    text = text.replace('DecordInit', 'mmtimesformer.VideoInit')
    text = text.replace('DecordDecode', 'mmtimesformer.VideoDecode')
    text = text.replace("imports=['mmtimesformer']", "imports=['mmtimesformer.datasets']")
    path.write_text(text.replace('num_classes=2', f'num_classes={classes}'))
    return path


def test_predict_needs_no_config_for_a_folder(
    tool: Tool,  # noqa: F811
    folder: Path,
    tiny_videos: Path,
    tmp_path: Path,
) -> None:
    with pytest.warns(UserWarning, match='has no frame_interval'):
        code, out, _ = tool('predict', tiny_videos / '0.mp4', folder, '--out', 'labels.json')
    assert code == 0
    assert all(name in out for name in CLASSES)
    (one,) = json.loads((tmp_path / 'labels.json').read_text())['videos']
    assert {best['label'] for best in one['top']} == {*CLASSES}


def test_predict_uses_the_preprocessing_of_the_folder_and_says_so(
    tool: Tool,  # noqa: F811
    folder: Path,
    tiny_videos: Path,
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path / 'tiny.py', tiny_videos)
    video = tiny_videos / '0.mp4'
    with pytest.warns(UserWarning, match="the checkpoint's preprocessing is used"):
        assert tool('predict', video, config, folder, '--out', 'a.json')[0] == 0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        options = ('--preprocessing', 'config', '--out', 'b.json')
        assert tool('predict', video, config, folder, *options)[0] == 0
    a, b = ((tmp_path / name).read_text() for name in ('a.json', 'b.json'))
    assert a != b


def test_a_test_with_other_preprocessing_is_an_error_until_it_is_chosen(
    tool: Tool,  # noqa: F811
    folder: Path,
    tiny_videos: Path,
    tmp_path: Path,
) -> None:
    config = write_config(tmp_path / 'tiny.py', tiny_videos)
    code, _, error = tool('test', config, folder)
    assert code == 1
    assert (
        'mean: the checkpoint was trained with (0.45, 0.4, 0.5), the config gives (0.5, 0.5, 0.5)'
        in error
    )
    assert 'Choose by --preprocessing checkpoint or --preprocessing config' in error
    scores = {}
    for choice in ('checkpoint', 'config'):
        words = ('test', config, folder, '--preprocessing', choice, '--dump', f'{choice}.pkl')
        code, out, error = tool(*words)
        assert code == 0, error
        assert ("The checkpoint's preprocessing is used: mean:" in out) == (choice == 'checkpoint')
        scores[choice], _ = read_predictions(tmp_path / f'{choice}.pkl')
    assert np.abs(scores['checkpoint'] - scores['config']).max() > 1e-3


def test_a_checkpoint_without_stated_preprocessing_is_tested_as_before(
    tool: Tool,  # noqa: F811
    tiny_videos: Path,
    tmp_path: Path,
) -> None:
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    config = write_config(tmp_path / 'tiny.py', tiny_videos)
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    cfg = Config.fromfile(config)
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'bare.pth')
    assert tool('test', config, 'bare.pth')[0] == 0


@pytest.mark.parametrize('scheme', ['divided_space_time', 'joint_space_time'])
def test_train_from_a_folder_save_it_and_transformers_gives_the_same_logits(
    tool: Tool,  # noqa: F811
    tiny_videos: Path,
    tmp_path: Path,
    scheme: str,
) -> None:
    """The journey by ``tools/train.py``; the classifier is new, for two classes."""
    from transformers import TimesformerForVideoClassification

    from mmtimesformer.inference import VideoClassifier

    save_hub_folder(tmp_path / 'folder', scheme)
    config = write_config(tmp_path / 'tiny.py', tiny_videos, classes=2)
    options = ('--cfg-options', 'load_from=folder', f'model.backbone.attention_type={scheme}')
    code, _, error = tool('train', config, '--work-dir', 'work', '--no-validate', *options)
    assert code == 0, error
    assert 'loss' in (next((tmp_path / 'work').glob('*/*.log'))).read_text()
    trained = VideoClassifier(None, tmp_path / 'work' / 'epoch_1.pth', device='cpu')
    trained.save_pretrained(tmp_path / 'mine')
    theirs = TimesformerForVideoClassification.from_pretrained(tmp_path / 'mine').eval()
    weights = load_torch(tmp_path / 'work' / 'epoch_1.pth')['state_dict']
    assert torch.equal(theirs.classifier.weight.data, weights['cls_head.fc_cls.weight'])
    clips = trained.clips(tiny_videos / '0.mp4')
    with torch.inference_mode():
        logits = theirs(clips.transpose(1, 2)).logits
        ours = trained.model.cls_head(trained.model.backbone(clips))
    torch.testing.assert_close(logits, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.slow  # about half a minute: a training, a test and a report
def test_finetune_from_a_folder_and_save_it_for_transformers(
    tool: Tool,  # noqa: F811
    folder: Path,
    tiny_videos: Path,
    tmp_path: Path,
) -> None:
    from transformers import TimesformerForVideoClassification

    from mmtimesformer.inference import VideoClassifier

    for name, numbers in (('a', (0, 2, 4)), ('b', (1, 3, 5))):
        (tmp_path / 'videos' / name).mkdir(parents=True)
        for i in numbers:
            (tmp_path / 'videos' / name / f'{i}.mp4').symlink_to(tiny_videos / f'{i}.mp4')
    options = ('--pretrained', folder, '--out', 'out', '--epochs', 1, '--recipe', 'full')
    code, _, error = tool('finetune', 'videos', *options)
    assert code == 0, error
    trained = VideoClassifier(None, tmp_path / 'out' / 'model.pth', device='cpu')
    steps = [step['type'].rpartition('.')[2] for step in trained.inference_config.pipeline]
    assert 'ProcessorResize' in steps
    trained.save_pretrained(tmp_path / 'mine')
    theirs = TimesformerForVideoClassification.from_pretrained(tmp_path / 'mine').eval()
    clips = trained.clips(tiny_videos / '0.mp4')
    with torch.inference_mode():
        logits = theirs(clips.transpose(1, 2)).logits
        ours = trained.model.cls_head(trained.model.backbone(clips))
    torch.testing.assert_close(logits, ours, rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label == {0: 'a', 1: 'b'}


def test_compare_systems_prints_a_table_and_json(
    tool: Tool,  # noqa: F811
    folder: Path,
    tiny_videos: Path,
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        code, out, _ = tool('analysis_tools/compare_systems', tiny_videos / '0.mp4', folder)
        assert code == 0
        for words in ('official protocol', 'colours', 'logit of up', 'Differences from'):
            assert words in out, words
        words = ('analysis_tools/compare_systems', tiny_videos / '0.mp4', folder, '--json')
        code, out, _ = tool(*words)
    assert code == 0
    assert json.loads(out)['systems'][0]['name'] == 'mmtimesformer'
    code, _, error = tool('analysis_tools/compare_systems', tiny_videos / '0.mp4', 'nothing')
    assert code == 1
    assert 'nothing is not a folder or file here' in error
