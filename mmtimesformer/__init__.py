"""TimeSformer for video classification: a plug-in of MMAction2 on PyTorch and MMEngine.

Importing the package registers its parts (models, optimiser wrappers, hooks, the checkpoint
reader) under the scope ``mmtimesformer``. It needs torch, einops, NumPy and MMEngine only; the
parts that read videos need MMAction2 and import it when they are used.
"""

from mmtimesformer.models import TimeSformer

__version__ = '0.1.0'

__all__ = ['TimeSformer', '__version__']
