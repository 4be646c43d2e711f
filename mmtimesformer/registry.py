"""Our registries: children of MMEngine's roots, under the scope ``mmtimesformer``.

The name ``TimeSformer`` is taken in MMAction2's own registry, so ours are separate. A config
whose default scope is ``mmaction`` has ``type='mmtimesformer.TimeSformer'``, and MMEngine finds
the component by itself, importing the ``locations`` below when it has to.

NOTE: write the prefix in nested configs too. A bare ``type='FFN'`` is looked up in the *default*
scope, which under MMAction2's tools is ``mmaction``, and silently gives another class.
"""

from typing import Any

from mmengine import registry as roots
from mmengine.registry import Registry


class ChildRegistry(Registry):
    """A registry that looks up names which neither it nor MMEngine has in MMAction2's.

    So the scope ``mmtimesformer`` is enough for a config that mixes our components with those of
    MMAction2: in ``mmengine.hub``, in ``_base_ = 'mmtimesformer::…'`` and in inferencers.
    """

    def get(self, key: str) -> Any:
        """Return what is registered under a name, or raise MMEngine's error."""
        self.import_from_location()
        known = '.' in key or key in self.module_dict or key in self.root.module_dict
        return super().get(key if known else f'mmaction.{key}')


def _child_of(root: Registry, location: str) -> Registry:
    return ChildRegistry(
        root.name, parent=root, scope='mmtimesformer', locations=[f'mmtimesformer.{location}']
    )


MODELS = _child_of(roots.MODELS, 'models')
DATASETS = _child_of(roots.DATASETS, 'datasets.tar_shards.dataset')  # imports MMAction2
DATA_SAMPLERS = _child_of(roots.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child_of(roots.TRANSFORMS, 'datasets')
FUNCTIONS = _child_of(roots.FUNCTIONS, 'datasets')
METRICS = _child_of(roots.METRICS, 'engine')
HOOKS = _child_of(roots.HOOKS, 'engine')
LOOPS = _child_of(roots.LOOPS, 'engine')
MODEL_WRAPPERS = _child_of(roots.MODEL_WRAPPERS, 'engine')
OPTIM_WRAPPERS = _child_of(roots.OPTIM_WRAPPERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child_of(roots.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
PARAM_SCHEDULERS = _child_of(roots.PARAM_SCHEDULERS, 'engine')
WEIGHT_INITIALIZERS = _child_of(roots.WEIGHT_INITIALIZERS, 'engine')
VISUALIZERS = _child_of(roots.VISUALIZERS, 'visualization')

# Nothing of ours is in these. Without them MMEngine warns for each part of a config that has
# ``_base_ = 'mmtimesformer::…'``.
for root in (
    roots.EVALUATOR,
    roots.INFERENCERS,
    roots.LOG_PROCESSORS,
    roots.OPTIMIZERS,
    roots.RUNNER_CONSTRUCTORS,
    roots.RUNNERS,
    roots.VISBACKENDS,
):
    _child_of(root, 'registry')
