"""Layer-wise learning rate decay: smaller learning rates for layers nearer to the input."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmtimesformer.registry import OPTIM_WRAPPER_CONSTRUCTORS

EMBEDDINGS = ('cls_token', 'pos_embed', 'time_embed', 'patch_embed')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Give every layer its own learning rate, smaller by a constant ratio per layer.

    The classifier and the final norm have the optimizer's rate, the last block ``decay_rate`` times
    that, the block before ``decay_rate**2``, and so on to the embeddings. Biases, norms, the class
    token, position and time embeddings have no weight decay.

    From "BEiT: BERT Pre-Training of Image Transformers" (arXiv 2106.08254).

    Args:
        optim_wrapper_cfg: Of the optimizer wrapper, with its ``optimizer``.
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
                'optim_wrapper.paramwise_cfg.decay_rate, such as 0.75'
            )
        self.decay_rate = rate

    def add_params(self, params: list[dict[str, Any]], module: nn.Module, **kwargs: Any) -> None:
        """Add two groups for each layer: with and without weight decay."""
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
    """Return the number of blocks of a model, from the names of its parameters."""
    numbers = [layer_of(name, 0) for name, _ in module.named_parameters()]
    return max(numbers)


def layer_of(name: str, top: int) -> int:
    """Return the layer of a parameter: 0 for the embeddings, ``top`` after the blocks.

    >>> layer_of('backbone.blocks.3.attn.qkv.weight', 13)
    4
    """
    parts = name.split('.')
    if any(part in EMBEDDINGS for part in parts):
        return 0
    if 'blocks' in parts:
        return int(parts[parts.index('blocks') + 1]) + 1
    return top
