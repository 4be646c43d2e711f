"""Count the multiply-adds (FLOPs) and parameters of a model, on the meta device."""

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmtimesformer.cli import require_mmaction
from mmtimesformer.config.label_checks import without_list_statistics


@dataclass(frozen=True)
class Complexity:
    """The cost of one clip.

    ``multiply_adds`` are those of the backbone's convolutions, projections and attention, which
    papers call FLOPs; floating-point operations are twice as many.
    """

    shape: tuple[int, int, int, int]  # of the clip, c t H W
    multiply_adds: int
    parameters: int  # of the whole model with its head


def measure_complexity(cfg: Config, size: tuple[int, int] | None = None) -> Complexity:
    """Count the cost of one clip, of the frames and size that the backbone is built for.

    The model is built and run on the meta device, so the largest model takes a second and no
    memory.

    Args:
        cfg: A config whose ``model`` is a recogniser with ``backbone`` and ``cls_head``.
        size: Height and width of the frames in pixels; the backbone's own if not given.

    Raises:
        ValueError: The config has no such model.
    """
    backbone = (cfg.get('model') or {}).get('backbone')
    if backbone is None:
        raise ValueError('the config has no model.backbone; name the config of a recogniser')
    model = _build_on_meta(cfg)
    height, width = size or _pair(backbone.get('img_size', 224))
    clip = backbone.get('in_channels', 3), backbone.get('num_frames', 8), height, width
    counter = FlopCounterMode(display=False)
    # Papers count all of the last block, and every layer; a hook turns the fused layers off.
    model.backbone.out_type = 'tokens'
    for module in model.backbone.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_: None)
    with counter, torch.no_grad():
        model.backbone(torch.empty(1, *clip, device='meta'))
    multiply_adds = counter.get_total_flops() // 2 - _for_copies(model.backbone, clip[1])
    return Complexity(clip, multiply_adds, sum(p.numel() for p in model.parameters()))


def _for_copies(backbone: Any, t: int) -> int:
    """Count the MLP multiply-adds of copies of the class token, which the paper does not count."""
    if getattr(backbone, 'attention_type', None) != 'divided_space_time':
        return 0
    layers = [m for block in backbone.blocks for m in block.mlp.modules()]
    return (t - 1) * sum(m.weight.numel() for m in layers if isinstance(m, nn.Linear))


def _build_on_meta(cfg: Config) -> BaseModel:
    require_mmaction()
    with DefaultScope.overwrite_default_scope('mmaction'), torch.device('meta'):
        # The preprocessor is not counted, and may not work on the meta device.
        head = without_list_statistics(cfg.model.cls_head)
        return MODELS.build({**cfg.model, 'cls_head': head, 'data_preprocessor': None}).eval()


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def in_billions(number: int) -> str:
    """Write multiply-adds as papers do, such as ``196G``."""
    return f'{number / 1e9:,.0f}G' if number >= 1e9 else f'{number / 1e6:.1f}M'


def in_millions(number: int) -> str:
    """Write a number of parameters as papers do, such as ``122M`` or ``86.11M``."""
    millions = number / 1e6
    return f'{millions:.0f}M' if millions >= 100 else f'{millions:.2f}M'
