"""Initialize a model of ours from a checkpoint of any format, as its ``init_cfg``.

MMEngine's own ``Pretrained`` loads the keys that happen to match, logs the rest and continues, also
when no key matched. This one loads every weight, or raises.
"""

from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.model.weight_init import update_init_info
from torch import nn

from mmtimesformer.checkpoints import load_checkpoint
from mmtimesformer.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialize a model from a checkpoint of any format.

    From an image ViT, spatial attention takes its weights and temporal attention is seeded from
    them. Embeddings are resized to the model's frames and size. The load report is logged.

    Args:
        checkpoint: A path, a folder, ``https://…``, ``hf://owner/name`` or ``timm://name``.
        change_attention: Allow a checkpoint of another attention type.
        allow_missing: Prefixes of names that may be missing: newly initialized.
        source_size: Pixels that the checkpoint's ``pos_embed`` is for, where its grid is not
            square.
        resize: ``'grid'``, or ``'legacy-1d-nearest'`` for the official start at 448 pixels.
        sha256: The required hash of the file.
        trust: Allow this file to run the code it contains; for files of your own only.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.

    Example:
        >>> TimeSformer(init_cfg=dict(
        ...     type='mmtimesformer.Pretrained',
        ...     checkpoint='timm://vit_base_patch16_224.augreg_in21k')).init_weights()
    """

    def __init__(
        self,
        checkpoint: str,
        change_attention: bool = False,
        allow_missing: Sequence[str] = (),
        source_size: int | tuple[int, int] | None = None,
        resize: str = 'grid',
        sha256: str | None = None,
        trust: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.how: dict[str, Any] = {
            'change_attention': change_attention,
            'allow_missing': tuple(allow_missing),
            'source_size': source_size,
            'resize': resize,
            'sha256': sha256,
            'trust': trust,
        }

    def __call__(self, module: nn.Module) -> None:
        load_report = load_checkpoint(module, self.checkpoint, **self.how)
        print_log(f'Initialized from {self.checkpoint}\n{load_report.table()}', logger='current')
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'Pretrained: load from {self.checkpoint}')
