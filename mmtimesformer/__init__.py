"""TimeSformer for video classification: a plug-in of MMAction2 on PyTorch and MMEngine.

Importing the package registers its parts (models, optimiser wrappers, hooks, the checkpoint
reader) under the scope ``mmtimesformer``. It needs torch, einops, NumPy and MMEngine only; the
parts that read videos need MMAction2 and import it when they are used.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import mmtimesformer.compat  # repairs MMAction2 1.2.0, and changes nothing elsewhere
from mmtimesformer.models import TimeSformer

# MMEngine's Runner cannot be imported without OpenCV, which the core requirements do not bring.
# Where it can, our checkpoint reader takes the place of the Runner's own.
if find_spec('cv2'):
    import mmtimesformer.engine  # noqa: F401

if TYPE_CHECKING:
    from mmtimesformer.inference import VideoClassifier as VideoClassifier

__version__ = '0.1.0'

# Without VideoClassifier, so that `import *` works where MMAction2 is not.
__all__ = ['TimeSformer', '__version__']


def __getattr__(name: str) -> Any:
    """Import what needs MMAction2 when it is first asked for."""
    if name == 'VideoClassifier':
        from mmtimesformer.inference import VideoClassifier

        return VideoClassifier
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
