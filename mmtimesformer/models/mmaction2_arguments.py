"""Take the arguments of MMAction2's ``TimeSformer``, so that its configs build ours.

============================  =================================================================
``pretrained``                ``init_cfg=dict(type='mmtimesformer.Pretrained', checkpoint=…)``
``num_transformer_layers``    ``num_layers``
``norm_cfg``                  ``norm_eps``; only ``type='LN'``
``dropout_ratio``             only 0: there it acts on the embeddings alone, unlike ``drop_rate``
``transformer_layers``        only ``None``
============================  =================================================================
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mmengine.logging import print_log

NAMES = ('pretrained', 'num_transformer_layers', 'norm_cfg', 'dropout_ratio', 'transformer_layers')


def takes_mmaction2_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Decorate a constructor; its signature lists the arguments of MMAction2 at the end."""

    @functools.wraps(init)
    def wrapped(self: object, *args: Any, **kwargs: Any) -> None:
        theirs = {name: kwargs.pop(name) for name in NAMES if name in kwargs}
        for name, value in to_ours(theirs).items():
            if kwargs.get(name) is not None:
                given = ', '.join(key for key, value in theirs.items() if value is not None)
                raise ValueError(
                    f"backbone.{name} and {given} of MMAction2's TimeSformer are both "
                    f'set; remove the latter, or {name}'
                )
            kwargs[name] = value
        init(self, *args, **kwargs)

    signature = inspect.signature(init)
    extra = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in NAMES]
    wrapped.__dict__['__signature__'] = signature.replace(
        parameters=[*signature.parameters.values(), *extra]
    )
    return wrapped


def to_ours(theirs: dict[str, Any]) -> dict[str, Any]:
    """Return our arguments for those of MMAction2's ``TimeSformer``.

    Raises:
        ValueError: A value has no equal here.
    """
    ours: dict[str, Any] = {}
    norm = theirs.get('norm_cfg')
    if norm is not None:
        _require(norm.get('type') == 'LN', 'norm_cfg', norm, "only type='LN' and eps")
        ours['norm_eps'] = norm.get('eps', 1e-5)
    ratio, layers = theirs.get('dropout_ratio'), theirs.get('transformer_layers')
    _require(not ratio, 'dropout_ratio', ratio, 'only 0; drop_rate drops more')
    _require(layers is None, 'transformer_layers', layers, 'only None; use block_cfg')
    if theirs.get('num_transformer_layers') is not None:
        ours['num_layers'] = theirs['num_transformer_layers']
    checkpoint = theirs.get('pretrained')
    if checkpoint:  # '' is none, as in MMAction2
        ours['init_cfg'] = {'type': 'mmtimesformer.Pretrained', 'checkpoint': checkpoint}
        print_log(
            f'backbone.pretrained={checkpoint!r} is used as '
            "backbone.init_cfg=dict(type='mmtimesformer.Pretrained', checkpoint=…)",
            logger='current',
        )
    return ours


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ValueError(
            f"backbone.{name}={value!r} of MMAction2's TimeSformer has no equal in ours, which "
            f'takes {allowed}; remove backbone.{name}'
        )
