"""Check the config of a sharded training (FSDP): what does not work with sharded weights."""

import difflib
import inspect
from typing import Any

import torch
from torch.distributed.tensor import distribute_tensor

NAME = 'mmtimesformer.FSDPModelWrapper'
KEY = 'model_wrapper_cfg'
ARGUMENTS = 'shards', 'block_dtype', 'checkpoints'
CHOICES = {'block_dtype': ('float32', 'bfloat16'), 'checkpoints': ('whole', 'shares')}


def is_sharded(model_wrapper_cfg: Any) -> bool:
    """Whether a config asks for sharded training."""
    kind = model_wrapper_cfg.get('type') if isinstance(model_wrapper_cfg, dict) else None
    return (kind.__name__ if inspect.isclass(kind) else kind) in (NAME, 'FSDPModelWrapper')


def check_sharding(cfg: Any) -> None:
    """Refuse a config with parts that cannot work on shares, or would wait for ever.

    Raises:
        TypeError: The wrapper has no such argument.
        ValueError: Something else in the config does not go together with it.
    """
    if not is_sharded(cfg.get(KEY)):
        return
    for name in set(cfg[KEY]) - {'type', *ARGUMENTS}:
        near = difflib.get_close_matches(name, ARGUMENTS, n=1)
        raise TypeError(
            f'{KEY}.{name}: FSDPModelWrapper has no such argument'
            + (f'; did you mean {near[0]!r}?' if near else '')
        )
    if 'src_data_rank' not in inspect.signature(distribute_tensor).parameters:
        raise ValueError(
            f'{KEY}.type={NAME!r} needs torch 2.7 or newer, and this is {torch.__version__}'
        )
    check_choices(**{name: cfg[KEY][name] for name in CHOICES if name in cfg[KEY]})
    if cfg[KEY].get('checkpoints') == 'shares':
        hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
        for key, wrong in (
            ('out_dir', '://' in str(hook.get('out_dir'))),  # no file system
            ('type', hook.get('type') == 'mmengine.CheckpointHook'),  # which never removes shares
        ):
            if wrong:
                raise ValueError(
                    f"{KEY}.checkpoints='shares' does not go together with "
                    f'default_hooks.checkpoint.{key}={hook[key]!r}; leave that out, or take '
                    f"{KEY}.checkpoints='whole'"
                )
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper and 'optimizer' not in wrapper:
        raise ValueError(
            f'{KEY}.type={NAME!r} knows one optimiser, and optim_wrapper has several optimisers; '
            'set optim_wrapper.optimizer, and learning rates by paramwise_cfg'
        )
    if str(wrapper.get('type')).endswith('AmpOptimWrapper'):
        raise ValueError(
            f'{KEY}.type={NAME!r} trains in bfloat16 or float32, and optim_wrapper.type='
            f'{wrapper["type"]!r} in float16; use --amp bf16 instead of --amp'
        )
    for key, instead in (
        ('activation_checkpointing', 'set model.backbone.with_cp instead'),
        ('compile', 'leave it out'),
        ('sync_bn', 'leave it out: a TimeSformer has no batch norms'),
    ):
        if cfg.get(key):
            raise ValueError(f'{KEY}.type={NAME!r} does not go together with {key!r}; {instead}')
    for loader in ('train_dataloader', 'val_dataloader'):
        sampler = (cfg.get(loader) or {}).get('sampler')
        if isinstance(sampler, dict) and not sampler.get('round_up', True):
            raise ValueError(
                f'{loader}.sampler.round_up=False gives some processes fewer batches, and a model '
                f'of which each has a share runs in all or in none; leave it out (videos that come '
                'twice count once)'
            )


def check_choices(**values: Any) -> None:
    """Refuse an argument whose value is none of its choices."""
    for name, value in values.items():
        if value not in CHOICES[name]:
            raise ValueError(
                f'{name}={value!r} is not known; set {KEY}.{name} to one of '
                + ', '.join(CHOICES[name])
            )
