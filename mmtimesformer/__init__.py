"""TimeSformer for video classification: an extension of MMAction2 on PyTorch and MMEngine.

Importing the package registers its components (models, optimizer wrappers, hooks, the checkpoint
reader) under the scope ``mmtimesformer``. It needs torch, einops, NumPy and MMEngine only; the
components that read videos import MMAction2 when they are used.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import mmtimesformer.compat  # repairs MMAction2 1.2.0, and changes nothing elsewhere
from mmtimesformer.config.openmmlab import register_package
from mmtimesformer.models import TimeSformer
from mmtimesformer.version import __version__

register_package()

# MMEngine's Runner needs OpenCV, which the core requirements do not install. With it, our
# checkpoint reader replaces the Runner's own.
if find_spec('cv2'):
    import mmtimesformer.engine  # noqa: F401

if TYPE_CHECKING:
    from mmtimesformer.inference import VideoClassifier as VideoClassifier

# Without VideoClassifier, so that `import *` works where MMAction2 is not.
__all__ = ['TimeSformer', '__version__']


def __getattr__(name: str) -> Any:
    """Import on first use what needs MMAction2."""
    if name == 'VideoClassifier':
        from mmtimesformer.inference import VideoClassifier

        return VideoClassifier
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
