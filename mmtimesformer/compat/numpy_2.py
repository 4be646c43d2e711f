"""NumPy 2: fix MMAction2's `ColorJitter`, which raises OverflowError there.

`ColorJitter.adjust_hue` adds a Python integer, which may be negative, to an array of `uint8`. NumPy
1 widened the array; NumPy 2 raises `OverflowError: Python integer -20 out of bounds for uint8`.

The class is fixed right after its module is imported, or at once if it was imported before.
"""

from types import ModuleType
from typing import Any

from mmtimesformer.compat.after_import import after_import

_MODULE = 'mmaction.datasets.transforms.processing'


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


def repair_color_jitter() -> None:
    """Fix `ColorJitter` now or as soon as it is imported; may be called again."""
    after_import(_MODULE, repair)
