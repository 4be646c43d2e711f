"""TimeSformer for video classification: an extension of MMAction2 on PyTorch and MMEngine.

Importing the package registers its components (models, optimizer wrappers, hooks, the checkpoint
reader) under the scope ``mmtimesformer``. It needs torch, einops, NumPy and MMEngine only; the
components that read videos import MMAction2 when they are used.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mmtimesformer.failed_import import run_doctor_if_called
from mmtimesformer.version import __version__

try:
    import mmtimesformer.compat  # fixes for MMAction2 and MMEngine, where they need them
    from mmtimesformer.models import TimeSformer

    # MMEngine's Runner needs OpenCV, which the core requirements do not install. With it, our
    # checkpoint reader replaces the Runner's own.
    if find_spec('cv2'):
        import mmtimesformer.engine  # noqa: F401
except Exception:
    run_doctor_if_called()
    raise

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
