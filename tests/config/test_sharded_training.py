"""The config of a sharded training is checked before anything is built."""

from typing import Any

import pytest
from mmengine.config import Config

from mmtimesformer.config.sharded_training import check_sharding


def config(**changes: Any) -> Config:
    return Config({'model_wrapper_cfg': {'type': 'mmtimesformer.FSDPModelWrapper'}, **changes})


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'optim_wrapper': {'type': 'AmpOptimWrapper', 'optimizer': {}}}, '--amp bf16'),
        ({'compile': True}, "does not work with 'compile'"),
        ({'activation_checkpointing': ['blocks']}, 'model.backbone.with_cp'),
        ({'optim_wrapper': {'one': {}, 'other': {}}}, 'several optimizers'),
        (
            {'val_dataloader': {'sampler': {'type': 'DefaultSampler', 'round_up': False}}},
            'val_dataloader.sampler.round_up=False',
        ),
    ],
)
def test_what_does_not_go_together_is_told_with_its_key(changes: Any, words: str) -> None:
    check_sharding(config())
    check_sharding(Config(changes))
    with pytest.raises(ValueError, match=words):
        check_sharding(config(**changes))


def test_a_misspelt_argument_is_told() -> None:
    with pytest.raises(TypeError, match=r"model_wrapper_cfg.shard: .*did you mean 'shards'"):
        check_sharding(
            config(model_wrapper_cfg={'type': 'mmtimesformer.FSDPModelWrapper', 'shard': 2})
        )
