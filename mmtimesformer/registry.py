"""Our registries: children of MMEngine's roots, under the scope ``mmtimesformer``.

The name ``TimeSformer`` is taken in MMAction2's own registry, so ours are separate. A config
whose default scope is ``mmaction`` has ``type='mmtimesformer.TimeSformer'``, and MMEngine finds
the component by itself, importing the ``locations`` below when it has to.

NOTE: write the prefix in nested configs too. A bare ``type='FFN'`` is looked up in the *default*
scope, which under MMAction2's tools is ``mmaction``, and silently gives another class.
"""

from mmengine import registry as roots
from mmengine.registry import Registry


def _child_of(root: Registry, location: str) -> Registry:
    return Registry(
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
