"""NumPy 2: fix MMAction2's `ColorJitter`, and four modules that use names NumPy 2 removed.

`ColorJitter.adjust_hue` adds a Python integer, which may be negative, to an array of `uint8`. NumPy
1 widened the array; NumPy 2 raises `OverflowError: Python integer -20 out of bounds for uint8`.

`PoseCompact`, `MMCompact`, the metrics of AVA and ActivityNet, and `frame_extract` use `np.Inf`,
`np.NAN` and `np.trapz`. These modules, and no others, get a NumPy that has the three names.

A module is fixed right after it is imported, or at once if it was imported before.
"""

from types import ModuleType
from typing import Any

from mmtimesformer.compat.after_import import after_import

_MODULE = 'mmaction.datasets.transforms.processing'
USE_OLD_NAMES = (
    'mmaction.datasets.transforms.pose_transforms',
    'mmaction.evaluation.functional.accuracy',
    'mmaction.evaluation.functional.ava_evaluation.metrics',
    'mmaction.utils.misc',
)
_TODAY = {'Inf': 'inf', 'NAN': 'nan', 'trapz': 'trapezoid'}  # removed name: its name in NumPy 2


class OldNames(ModuleType):
    """NumPy, with the names that it removed."""

    def __init__(self, numpy: ModuleType) -> None:
        super().__init__('numpy')
        self.__dict__['_numpy'] = numpy

    def __getattr__(self, name: str) -> Any:
        """Return what NumPy has under a name, or under its name of today."""
        numpy = self.__dict__['_numpy']
        return getattr(numpy, name if hasattr(numpy, name) else _TODAY.get(name, name))


def restore_names(module: ModuleType) -> None:
    """Give the removed names to a module that has imported NumPy as ``np``; others are kept."""
    numpy = vars(module).get('np')
    if numpy is None or isinstance(numpy, OldNames):
        return
    if not all(hasattr(numpy, name) for name in _TODAY):
        module.__dict__['np'] = OldNames(numpy)


def repair(module: ModuleType) -> None:
    """Replace `adjust_hue` of `ColorJitter`, which rotates the hue of an image, in its module.

    It takes pixels from 0 to 255 in RGB, and a fraction of the color circle from -0.5 to 0.5 in
    MMAction2's units (1 is 255 steps of 2 degrees), and returns float32.

    NOTE: It equals NumPy 1 up to `hue=0.29`. Beyond, MMAction2's sums overflow `uint8` and give
    other colors.
    """
    jitter: Any = getattr(module, 'ColorJitter', None)
    if not hasattr(jitter, 'adjust_hue'):
        return
    cv2, np = module.cv2, module.np

    def adjust_hue(img: Any, factor: float) -> Any:
        hsv = cv2.cvtColor(np.clip(img, 0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV)
        hue = hsv[..., 0].astype(np.int16) + int(factor * 255)
        hsv[..., 0] = hue % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)

    jitter.adjust_hue = staticmethod(adjust_hue)


def restore_removed_names() -> None:
    """Fix the modules that use removed names, now or as soon as each is imported."""
    for module in USE_OLD_NAMES:
        after_import(module, restore_names)


def repair_color_jitter() -> None:
    """Fix `ColorJitter` now or as soon as it is imported; may be called again."""
    after_import(_MODULE, repair)
