"""Let MMEngine's inferencers find our models by name, as they find those of OpenMMLab.

MMAction2's inferencers look for a name among MMAction2's models: their scope is ``mmaction``. After
``import mmtimesformer`` a name of ours that MMAction2 does not have is found as well, and with
``scope='mmtimesformer'`` every name of ours.
"""

from mmengine.config import Config
from mmengine.infer import BaseInferencer

from mmtimesformer.cli import near_name
from mmtimesformer.config.find import find_config
from mmtimesformer.config.model_zoo import config_names, weights_of

SCOPES = ('mmtimesformer', 'mmaction')
_load_of_scope = BaseInferencer._load_model_from_metafile


def register_model_names() -> None:
    """Replace the method by which an inferencer looks up a name; may be called again."""
    BaseInferencer._load_model_from_metafile = load_by_name


def load_by_name(self: BaseInferencer, model: str) -> tuple[Config, str]:
    """Return config and weights of a model by its name, in any case.

    Raises:
        ValueError: There is no such name in the scope, or nobody publishes weights for it.
    """
    ours = {name.lower(): name for name in config_names()}
    if self.scope != 'mmtimesformer':
        try:
            return _load_of_scope(self, model)
        except ValueError:
            if self.scope not in SCOPES or model.lower() not in ours:
                raise
    name = ours.get(model.lower())
    if name is None:
        raise ValueError(
            f'{model} is no model of mmtimesformer{near_name(model, config_names(), 0.3, 3)}; '
            "for a model of MMAction2 set scope='mmaction'"
        )
    weights = weights_of(name)
    if weights is None:
        raise ValueError(
            f'nobody publishes weights for {name}; give your checkpoint, and the path of the '
            f'config instead of its name: {find_config(name)}'
        )
    return Config.fromfile(find_config(name)), weights
