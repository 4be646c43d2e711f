"""Let MMEngine's inferencers find our models by name, as they find those of OpenMMLab.

MMAction2's inferencers look for a name among MMAction2's models: their scope is ``mmaction``. After
``import mmtimesformer`` a name of ours that MMAction2 does not have is found as well, and with
``scope='mmtimesformer'`` every name of ours. ``MMAction2Inferencer``, which has no such argument,
takes it too.
"""

import functools
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.config import Config
from mmengine.infer import BaseInferencer

from mmtimesformer.cli import near_name
from mmtimesformer.compat.after_import import after_import
from mmtimesformer.config.find import find_config
from mmtimesformer.config.model_zoo import config_names, weights_of

SCOPES = ('mmtimesformer', 'mmaction')
_load_of_scope = BaseInferencer._load_model_from_metafile


def register_model_names() -> None:
    """Replace the method by which an inferencer looks up a name; may be called again."""
    BaseInferencer._load_model_from_metafile = load_by_name
    after_import('mmaction.apis.inferencers.mmaction2_inferencer', accept_scope)


def accept_scope(module: ModuleType) -> None:
    """Let ``MMAction2Inferencer`` take ``scope``; may be called again.

    With ``scope='mmtimesformer'`` it gets the config and the weights of the name, and builds them
    in MMAction2's scope, as it does every config.
    """
    inferencer = module.MMAction2Inferencer
    theirs = inferencer.__init__
    if hasattr(theirs, '__wrapped__'):
        return

    @functools.wraps(theirs)
    def init(
        self: BaseInferencer,
        rec: Any = None,
        rec_weights: str | None = None,
        *others: Any,
        scope: str | None = None,
        **options: Any,
    ) -> None:
        if scope not in (None, *SCOPES):
            raise ValueError(
                f"scope={scope!r} is not a scope of this inferencer; set scope='mmtimesformer' for "
                "a model of this package, scope='mmaction' for one of MMAction2"
            )
        if scope == 'mmtimesformer' and isinstance(rec, str) and not Path(rec).is_file():
            rec, rec_weights = _named(rec, rec_weights)
        theirs(self, rec, rec_weights, *others, **options)

    inferencer.__init__ = init


def load_by_name(self: BaseInferencer, model: str) -> tuple[Config, str]:
    """Return config and weights of a model by its name, in any case.

    Raises:
        ValueError: There is no such name in the scope, or nobody publishes weights for it.
    """
    if self.scope != 'mmtimesformer':
        try:
            return _load_of_scope(self, model)
        except ValueError:
            ours = {name.lower() for name in config_names()}
            if self.scope not in SCOPES or model.lower() not in ours:
                raise
    return _named(model)


def _named(model: str, weights: str | None = None) -> tuple[Config, str]:
    """Return config and weights of one of our names; the weights are those given, if any."""
    ours = {name.lower(): name for name in config_names()}
    name = ours.get(model.lower())
    if name is None:
        raise ValueError(
            f'{model} is no model of mmtimesformer{near_name(model, config_names(), 0.3, 3)}; '
            "for a model of MMAction2 set scope='mmaction'"
        )
    weights = weights or weights_of(name)
    if weights is None:
        raise ValueError(
            f'nobody publishes weights for {name}; give your checkpoint, and the path of the '
            f'config instead of its name: {find_config(name)}'
        )
    return Config.fromfile(find_config(name)), weights
