"""Layer-wise learning rates: the nearer to the pixels, the less a pretrained weight moves."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmtimesformer.registry import OPTIM_WRAPPER_CONSTRUCTORS

EMBEDDINGS = ('cls_token', 'pos_embed', 'time_embed', 'patch_embed')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Give every layer its own learning rate, smaller by a constant ratio per layer.

    The classifier and the final norm learn at the optimiser's rate, the last block at
    ``decay_rate`` times that, the block before at ``decay_rate**2``, and so on down to the
    embeddings. Biases, norms, the class token, positions and times are spared weight decay.

    From "BEiT: BERT Pre-Training of Image Transformers" (arXiv 2106.08254), where it makes
    fine-tuning on small data sets safe.

    Args:
        optim_wrapper_cfg: Of the optimiser wrapper, with the ``optimizer`` inside.
        paramwise_cfg: ``dict(decay_rate=…)``, above 0 and at most 1.

    Raises:
        ValueError: ``decay_rate`` is missing or out of range.

    Example:
        >>> optim_wrapper = dict(
        ...     constructor='mmtimesformer.LayerDecay',
        ...     paramwise_cfg=dict(decay_rate=0.75),
        ...     optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
    """

    def __init__(
        self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None
    ) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = self.paramwise_cfg.get('decay_rate')
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise ValueError(
                f'decay_rate={rate!r} is not above 0 and at most 1; set '
                'optim_wrapper.paramwise_cfg.decay_rate, to 0.75, say'
            )
        self.decay_rate = rate

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **kwargs: Any) -> None:
        """Add one group for each layer, and within it one each with and without weight decay."""
        top = depth_of(module) + 1
        groups: dict[tuple[int, bool], dict[str, Any]] = {}
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            layer = layer_of(name, top)
            decayed = parameter.ndim > 1 and not name.endswith(EMBEDDINGS[:3])
            group = groups.setdefault((layer, decayed), {'params': []})
            group['params'].append(parameter)
            group['lr'] = self.base_lr * self.decay_rate ** (top - layer)
            if not decayed:
                group['weight_decay'] = 0.0
        params.extend(groups[key] for key in sorted(groups))


def depth_of(module: nn.Module) -> int:
    """How many blocks a model has, by the names of its parameters."""
    numbers = [layer_of(name, 0) for name, _ in module.named_parameters()]
    return max(numbers)


def layer_of(name: str, top: int) -> int:
    """Return the layer of a parameter: 0 for the embeddings, ``top`` for what follows the blocks.

    >>> layer_of('backbone.blocks.3.attn.qkv.weight', 13)
    4
    """
    parts = name.split('.')
    if any(part in EMBEDDINGS for part in parts):
        return 0
    if 'blocks' in parts:
        return int(parts[parts.index('blocks') + 1]) + 1
    return top
