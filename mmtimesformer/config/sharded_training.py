"""Check the config of a sharded training (FSDP) before anything is built."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.tensor import distribute_tensor

from mmtimesformer.cli import near_name

NAME = 'mmtimesformer.FSDPModelWrapper'
KEY = 'model_wrapper_cfg'
ARGUMENTS = 'shards', 'block_dtype', 'checkpoints'
CHOICES = {'block_dtype': ('float32', 'bfloat16'), 'checkpoints': ('full', 'sharded')}


def is_sharded(model_wrapper_cfg: object) -> bool:
    """Whether a config asks for sharded training."""
    kind = model_wrapper_cfg.get('type') if isinstance(model_wrapper_cfg, dict) else None
    return (kind.__name__ if inspect.isclass(kind) else kind) in (NAME, 'FSDPModelWrapper')


def check_choices(**values: object) -> None:
    """Refuse an argument of the wrapper whose value is none of its choices.

    Raises:
        ValueError: It is none of them.
    """
    for name, value in values.items():
        if value not in CHOICES[name]:
            raise ValueError(
                f'{name}={value!r} is not known; set {KEY}.{name} to one of '
                + ', '.join(CHOICES[name])
            )


def check_sharding(cfg: Mapping[str, Any]) -> None:
    """Refuse a config that does not work with sharded weights, or in which processes would hang.

    Raises:
        TypeError: The wrapper has no such argument.
        ValueError: Another key of the config does not work with it.
    """
    if not is_sharded(cfg.get(KEY)):
        return
    for name in set(cfg[KEY]) - {'type', *ARGUMENTS}:
        raise TypeError(
            f'{KEY}.{name}: FSDPModelWrapper has no such argument{near_name(name, ARGUMENTS)}'
        )
    if 'src_data_rank' not in inspect.signature(distribute_tensor).parameters:
        raise ValueError(
            f'{KEY}.type={NAME!r} needs torch 2.7 or newer, and this is {torch.__version__}'
        )
    check_choices(**{name: cfg[KEY][name] for name in CHOICES if name in cfg[KEY]})
    _check_checkpoints(cfg)
    _check_optimizer(cfg.get('optim_wrapper') or {})
    for key, instead in (
        ('activation_checkpointing', 'set model.backbone.with_cp instead'),
        ('compile', 'leave it out'),
        ('sync_bn', 'leave it out: a TimeSformer has no batch norms'),
    ):
        if cfg.get(key):
            raise ValueError(f'{KEY}.type={NAME!r} does not work with {key!r}; {instead}')
    for loader in ('train_dataloader', 'val_dataloader'):
        sampler = (cfg.get(loader) or {}).get('sampler')
        if isinstance(sampler, dict) and not sampler.get('round_up', True):
            raise ValueError(
                f'{loader}.sampler.round_up=False gives some processes fewer batches, and a '
                'sharded model runs in all processes or in none; leave it out (videos that are '
                'repeated count once)'
            )


def _check_checkpoints(cfg: Mapping[str, Any]) -> None:
    if cfg[KEY].get('checkpoints') != 'sharded':
        return
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    for key, wrong in (
        ('out_dir', '://' in str(hook.get('out_dir'))),  # no file system
        ('type', hook.get('type') == 'mmengine.CheckpointHook'),  # never removes shards
    ):
        if wrong:
            raise ValueError(
                f"{KEY}.checkpoints='sharded' does not work with "
                f'default_hooks.checkpoint.{key}={hook[key]!r}; leave that out, or set '
                f"{KEY}.checkpoints='full'"
            )


def _check_optimizer(wrapper: Mapping[str, Any]) -> None:
    if wrapper and 'optimizer' not in wrapper:
        raise ValueError(
            f'{KEY}.type={NAME!r} takes one optimizer, and optim_wrapper has several optimizers; '
            'set optim_wrapper.optimizer, and learning rates by paramwise_cfg'
        )
    if str(wrapper.get('type')).endswith('AmpOptimWrapper'):
        raise ValueError(
            f'{KEY}.type={NAME!r} trains in bfloat16 or float32, and optim_wrapper.type='
            f'{wrapper["type"]!r} in float16; use --amp bf16 instead of --amp'
        )
