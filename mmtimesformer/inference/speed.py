"""Run the backbone of a recognizer faster: compiled, in bfloat16 or int8, with merged tracks.

:mod:`mmtimesformer.config.speed` lists the values of the switch. ``tools/analysis_tools/
compare_precision.py`` measures on your own videos what each gains and how it moves scores.

The exact backbone is not changed: a copy of its modules is, which refers to the same weights. In it
``temporal_fc`` and the projection before it are one layer, so that their product is what is cast,
rounded or packed.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mmtimesformer.config.speed import Speed
from mmtimesformer.engine.optim.amp import check_device
from mmtimesformer.inference.compiled import Compiled, check_compiler
from mmtimesformer.inference.int8 import quantise
from mmtimesformer.inference.packed import can_pack, pack
from mmtimesformer.models import TimeSformer
from mmtimesformer.models.fused_linear import is_plain, multiply


def prepare(recognizer: Any, speed: Speed, device: torch.device) -> None:
    """Let a recognizer run at a speed from now on: its backbone is replaced by a faster one.

    Args:
        recognizer: In evaluation mode, with its weights loaded, on ``device``.
        speed: Nothing is done for ``exact``.
        device: Of the recognizer.

    Raises:
        ValueError: The device, the model or this machine does not support the speed.
    """
    if not speed.is_exact:
        recognizer.backbone = accelerate(recognizer.backbone, speed, device)


def accelerate(backbone: nn.Module, speed: Speed, device: torch.device) -> nn.Module:
    """Return a faster copy of a backbone; arguments and errors as in :func:`prepare`."""
    _check(backbone, speed, device)
    with torch.no_grad():
        inner: Any = _copy(backbone).eval()
        fold(inner)
        if speed.merged:
            _merge(inner, speed)
        if speed.arithmetic == 'int8':
            quantise(inner)
        if speed.arithmetic == 'bf16':
            _cast(inner)
            if can_pack(device) and not speed.compiled:
                pack(inner)
    return FastBackbone(inner, speed).eval()


class FastBackbone(nn.Module):
    """A backbone that computes at a speed; it takes the place of the exact one.

    Attributes of the exact backbone, such as ``blocks`` and ``out_type``, are those of ``inner``.

    Args:
        inner: The changed copy.
        speed: What to do besides.

    Shape: that of :class:`~mmtimesformer.models.TimeSformer`, always float32.
    """

    def __init__(self, inner: TimeSformer, speed: Speed) -> None:
        super().__init__()
        self.inner = inner
        self.speed = speed
        self._run: Any = Compiled(inner) if speed.compiled else inner

    def forward(self, video: Tensor) -> Any:
        if self.training:
            raise ValueError(f'a backbone of speed={str(self.speed)!r} cannot be trained')
        is_short = self.speed.arithmetic == 'bf16'
        video = video.bfloat16() if is_short else video
        with (
            torch.inference_mode(),
            torch.autocast(video.device.type, torch.bfloat16, enabled=is_short),
        ):
            return to_float32(self._run(video))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__('inner'), name)

    @property
    def out_type(self) -> str:
        """What the backbone returns; it may be set."""
        return str(self.inner.out_type)

    @out_type.setter
    def out_type(self, value: str) -> None:
        self.inner.out_type = value


def to_float32(output: Any) -> Any:
    """Return a tensor, or tuples of tensors, as float32; whole numbers stay."""
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    return tuple(map(to_float32, output))


def fold(backbone: TimeSformer) -> None:
    """Make one layer of ``temporal_fc`` and the projection before it, in every block, in place.

    A block in which either is not a plain linear layer stays as it is.
    """
    for block in backbone.blocks:
        fc: Any = getattr(block, 'temporal_fc', None)
        attn: Any = getattr(block, 'temporal_attn', None)
        if fc is None or not (is_plain(fc) and is_plain(attn.proj)):
            continue
        proj = nn.Linear(fc.in_features, fc.out_features, device='meta')
        weight, bias = multiply(attn.proj, fc)
        proj.weight, proj.bias = nn.Parameter(weight), nn.Parameter(bias + fc.bias)
        attn.proj, block.temporal_fc = proj, nn.Identity()


def _check(backbone: nn.Module, speed: Speed, device: torch.device) -> None:
    """Refuse what this backbone or this machine does not support, before anything is copied."""
    if not isinstance(backbone, TimeSformer):
        raise ValueError(
            f'speed={str(speed)!r} is for TimeSformer, and the backbone is a '
            f"{type(backbone).__name__}; give speed='exact'"
        )
    if speed.arithmetic == 'bf16' and device.type == 'cuda':
        check_device('bf16')
    if speed.arithmetic == 'int8' and device.type != 'cpu':
        raise ValueError(f"speed='int8' computes on a CPU, not on {device}; give bf16")
    if speed.compiled:
        check_compiler()


def _copy(backbone: nn.Module) -> nn.Module:
    """Copy the modules of a backbone; parameters and buffers are shared."""
    shared = [*backbone.parameters(), *backbone.buffers()]
    return copy.deepcopy(backbone, {id(tensor): tensor for tensor in shared})


def _cast(backbone: TimeSformer) -> None:
    """Cast a backbone to bfloat16: its tokens, norms and sums are in bfloat16 as well.

    The parameters are new ones, since those of the copy are the exact backbone's.
    """
    for module in backbone.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.to(torch.bfloat16)))


def _merge(backbone: TimeSformer, speed: Speed) -> None:
    """Let a backbone merge tracks.

    Raises:
        ValueError: It cannot.
    """
    from mmtimesformer import models

    set_merge = getattr(models, 'set_merge', None)
    if set_merge is None:
        raise ValueError(f'speed={str(speed)!r}: this backbone cannot merge tracks; give another')
    try:
        set_merge(backbone, speed.merged)
    except TypeError as error:  # a custom block or attention
        raise ValueError(f'speed={str(speed)!r}: {error}') from error
