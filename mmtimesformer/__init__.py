"""TimeSformer for video classification: an extension of MMAction2 on PyTorch and MMEngine.

Importing the package registers its components (models, optimizer wrappers, hooks, the checkpoint
reader) under the scope ``mmtimesformer``. It needs torch, einops, NumPy and MMEngine only; the
components that read videos import MMAction2 when they are used.
"""

import sys
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from mmtimesformer.console.tools import FOLDERS
from mmtimesformer.version import __version__

if TYPE_CHECKING:
    from mmtimesformer.inference import VideoClassifier as VideoClassifier
    from mmtimesformer.models import TimeSformer as TimeSformer

# Without VideoClassifier, so that `import *` works where MMAction2 is not.
__all__ = ['TimeSformer', '__version__']


def __getattr__(name: str) -> Any:
    """Import the classes on first use: VideoClassifier needs MMAction2."""
    if name == 'VideoClassifier':
        from mmtimesformer.inference import VideoClassifier

        return VideoClassifier
    if name == 'TimeSformer':
        from mmtimesformer.models import TimeSformer

        return TimeSformer
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def register_components() -> None:
    """Register the components, and repair other packages where they need it; idempotent."""
    import mmtimesformer.compat  # fixes for MMAction2 and MMEngine, where they need them
    import mmtimesformer.models
    from mmtimesformer.config.openmmlab import register_package

    register_package()
    # MMEngine's Runner needs OpenCV, which the core requirements do not install. With it, our
    # checkpoint reader replaces the Runner's own.
    if find_spec('cv2'):
        import mmtimesformer.engine  # noqa: F401


def _started_by_command() -> bool:
    """Whether this process is ``mmtimesformer TOOL`` or ``python -m mmtimesformer TOOL``.

    Python sets ``sys.argv[0]`` to ``-m`` while it looks for the module to run.
    """
    if sys.argv[:1] == ['-m']:
        return 'mmtimesformer' in sys.orig_argv
    return PurePath((sys.argv or [''])[0]).stem == 'mmtimesformer'


def _runs_a_tool() -> bool:
    """Whether this process runs a file of ``tools/``; not so in the processes that it spawns."""
    file = getattr(sys.modules.get('__main__'), '__file__', None)
    return file is not None and not {*Path(file).resolve().parents}.isdisjoint(FOLDERS)


# PyTorch takes seconds to import. A tool imports it after its command line is parsed
# (config.command_line.parse): `--help`, `--version` and a mistake need nothing.
if not (_started_by_command() or _runs_a_tool()):
    register_components()
