import logging
import types

import pytest
import torch
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, ValLoop

import mmtimesformer.engine.hooks.adapt_checkpoint  # noqa: F401
from mmtimesformer.checkpoints import CheckpointError, read_model_checkpoint
from tests.checkpoints.conftest import IMAGE_FILES, VIDEO_FILES, Recognizer, random_weights


def _runner(model, cfg=None):
    logger = logging.getLogger('test_adapt_checkpoint')
    loops = dict.fromkeys(('_train_loop', '_val_loop', '_test_loop'))
    return types.SimpleNamespace(model=model, cfg=cfg or {}, logger=logger, _resume=False, **loops)


@pytest.mark.parametrize(
    'kind', ['mmtimesformer', 'mmaction2', 'paddle', 'paddle_vit', 'timm bin', 'jax']
)
def test_the_hook_makes_what_the_runner_loads_fit(kind, tmp_path) -> None:
    weights = random_weights() if kind in VIDEO_FILES else random_weights('space_only')
    ({**VIDEO_FILES, **IMAGE_FILES})[kind](weights, tmp_path / 'a')
    checkpoint = read_model_checkpoint(tmp_path / 'a')
    model = Recognizer()
    HOOKS.build({'type': 'mmtimesformer.AdaptCheckpointHook'}).after_load_checkpoint(
        _runner(model), checkpoint
    )
    model.load_state_dict(checkpoint['state_dict'])
    name = 'blocks.1.mlp.fc2.weight'
    assert torch.equal(model.backbone.state_dict()[name], weights[name])


def test_the_hook_says_where_preprocessing_differs(tmp_path, caplog) -> None:
    VIDEO_FILES['official'](random_weights(), tmp_path / 'a')
    checkpoint = read_model_checkpoint(tmp_path / 'a')
    cfg = {'model': {'data_preprocessor': {'mean': [127.5] * 3, 'std': [127.5] * 3}}}
    hook = HOOKS.build({'type': 'mmtimesformer.AdaptCheckpointHook'})
    with caplog.at_level(logging.INFO, 'test_adapt_checkpoint'):
        hook.after_load_checkpoint(_runner(Recognizer(), cfg), checkpoint)
    assert 'trained with (0.45, 0.45, 0.45), the config gives (0.5, 0.5, 0.5)' in caplog.text


def test_the_hook_warns_of_a_fresh_classifier(tmp_path, caplog) -> None:
    VIDEO_FILES['mmtimesformer'](random_weights(), tmp_path / 'a')
    hook = HOOKS.build({'type': 'mmtimesformer.AdaptCheckpointHook'})
    with caplog.at_level(logging.WARNING, 'test_adapt_checkpoint'):
        hook.after_load_checkpoint(
            _runner(Recognizer(num_classes=4)), read_model_checkpoint(tmp_path / 'a')
        )
    assert 'cls_head.fc_cls.weight, cls_head.fc_cls.bias did not come from it' in caplog.text


def test_a_test_of_a_classifier_that_no_checkpoint_gave_is_refused(tmp_path) -> None:
    VIDEO_FILES['mmtimesformer'](random_weights(), tmp_path / 'a')
    runner = _runner(Recognizer(num_classes=4))
    runner._val_loop = object.__new__(ValLoop)
    hook = HOOKS.build({'type': 'mmtimesformer.AdaptCheckpointHook'})
    with pytest.raises(CheckpointError, match=r'fc_cls\.weight.*num_classes.* random weights'):
        hook.after_load_checkpoint(runner, read_model_checkpoint(tmp_path / 'a'))
    runner._train_loop = object.__new__(EpochBasedTrainLoop)
    hook.after_load_checkpoint(runner, read_model_checkpoint(tmp_path / 'a'))


def test_the_hook_keeps_what_a_training_needs_to_go_on(tmp_path) -> None:
    model = Recognizer()
    training = {
        'meta': {'epoch': 3, 'iter': 12},
        'state_dict': model.state_dict(),
        'optimizer': {'state': {}},
        'message_hub': {},
    }
    torch.save(training, tmp_path / 'a.pth')
    checkpoint = read_model_checkpoint(tmp_path / 'a.pth')
    runner = _runner(model)
    runner._resume = True
    hook = HOOKS.build({'type': 'mmtimesformer.AdaptCheckpointHook'})
    hook.after_load_checkpoint(runner, checkpoint)
    assert set(checkpoint) == set(training)
    assert checkpoint['meta']['iter'] == 12


@pytest.mark.parametrize('kind', ['mmaction2', 'official'])
def test_the_hook_refuses_to_resume_the_training_of_another_system(kind, tmp_path) -> None:
    VIDEO_FILES[kind](random_weights(), tmp_path / 'a')
    runner = _runner(Recognizer())
    runner._resume = True
    hook = HOOKS.build({'type': 'mmtimesformer.AdaptCheckpointHook'})
    with pytest.raises(ValueError, match=r'not its own: .*load_from=CHECKPOINT'):
        hook.after_load_checkpoint(runner, read_model_checkpoint(tmp_path / 'a'))


def test_the_hook_leaves_other_models_alone() -> None:
    checkpoint = {'state_dict': {'weight': torch.zeros(1)}}
    hook = HOOKS.build({'type': 'mmtimesformer.AdaptCheckpointHook'})
    hook.after_load_checkpoint(_runner(torch.nn.Linear(1, 1)), checkpoint)
    assert list(checkpoint['state_dict']) == ['weight']
