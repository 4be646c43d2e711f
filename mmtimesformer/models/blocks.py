"""Transformer blocks: one for each of the paper's attention schemes.

=======================  =================================================================
scheme                   a patch attends to
=======================  =================================================================
divided space-time       first its own track (its place in all frames), then its own frame
joint space-time         every patch of every frame
space-only               its own frame
=======================  =================================================================
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from mmtimesformer.models.attention import SelfAttention
from mmtimesformer.models.embeddings import init_temporal
from mmtimesformer.models.ffn import FFN
from mmtimesformer.models.fused_linear import FusedLinear, has_hooks, is_plain
from mmtimesformer.registry import MODELS


class DropPath(nn.Module):
    """Stochastic depth: in training, drop whole rows of a residual branch.

    Rows that stay are scaled up by ``1 / (1 - drop_rate)``, so the expectation does not move.

    Args:
        drop_rate: Probability to drop a row; 0 drops none, 1 is not allowed.

    Shape:
        - rows: ``b … d`` -> the same; one draw for each of the ``b`` rows
    """

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        if not 0 <= drop_rate < 1:
            raise ValueError(
                f'drop_path_rate={drop_rate} is not a probability below 1; '
                'set backbone.drop_path_rate to at least 0 (never) and less than 1'
            )
        self.drop_rate = drop_rate

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training or self.drop_rate == 0:
            return rows
        keep = 1 - self.drop_rate
        draws = rows.new_empty(rows.shape[:1] + (1,) * (rows.ndim - 1))
        return rows * draws.bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f'drop_rate={self.drop_rate:.3g}'


class EncoderBlock(nn.Module):
    """The pre-norm block of the Vision Transformer, over any tokens.

    ``tokens += attn(norm1(tokens))``, then ``tokens += mlp(norm2(tokens))``. The registered blocks
    below define one row of tokens. A custom block of the same scheme takes the same arguments and
    the same two inputs.

    Args: those of :class:`~mmtimesformer.models.TimeSformer` with the same names, and
    ``drop_path_rate``, the probability to drop a residual row of this block in training, 0 to 1.

    A model that merges tokens gives ``key_bias`` to its blocks, see
    :class:`~mmtimesformer.models.track_merging.MergedTokens`.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        norm_eps: float = 1e-6,
        attn_cfg: dict[str, Any] | None = None,
        ffn_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._attn_cfg = {
            'type': 'mmtimesformer.SelfAttention',
            'embed_dims': embed_dims,
            'num_heads': num_heads,
            'qkv_bias': qkv_bias,
            'attn_drop_rate': attn_drop_rate,
            'drop_rate': drop_rate,
            **(attn_cfg or {}),
        }
        ffn_cfg = {
            'type': 'mmtimesformer.FFN',
            'embed_dims': embed_dims,
            'feedforward_channels': int(embed_dims * mlp_ratio),
            'drop_rate': drop_rate,
            **(ffn_cfg or {}),
        }
        self.norm1 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.attn = MODELS.build(self._attn_cfg)
        self.norm2 = nn.LayerNorm(embed_dims, eps=norm_eps)
        self.mlp = MODELS.build(ffn_cfg)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: Tensor, t: int, *key_bias: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), *key_bias))
        output: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return output

    def forward_cls(self, tokens: Tensor, t: int, *key_bias: Tensor) -> Tensor:
        """Return only the class token of :meth:`forward`, all that is read after the last block.

        Shape:
            - tokens: ``b n d`` -> ``b 1 d``
        """
        update = self.attn.forward_first_token(self.norm1(tokens), *key_bias)
        cls = tokens[:, :1] + self.drop_path(update)
        output: Tensor = cls + self.drop_path(self.mlp(self.norm2(cls)))
        return output


@MODELS.register_module()
class JointSpaceTimeBlock(EncoderBlock):
    """Every token of the video attends to every other; the cost grows with ``(p * t) ** 2``.

    Args: those of :class:`EncoderBlock`.

    Shape:
        - tokens: ``b (1+p*t) d`` -> the same
    """


@MODELS.register_module()
class SpaceOnlyBlock(EncoderBlock):
    """Attention within each frame, which has its own class token; frames do not interact here.

    Args: those of :class:`EncoderBlock`.

    Shape:
        - tokens: ``(b t) (1+p) d`` -> the same
    """


@MODELS.register_module()
class DividedSpaceTimeBlock(EncoderBlock):
    """Attend over time, then over space (section 3 of the paper, eqs. 10 and 11).

    1. *Time.* Each patch attends to the same place in every frame. The class token has no place,
       so it takes no part.
    2. *Space.* Each frame's patches attend to each other and to the frame's copy of the class
       token. The mean of the copies' updates is added to all of them, so they stay one token.
    3. The MLP.

    Tokens are ordered frame by frame, so frames are a view of them and only tracks are copied.
    Copies of the class token cost ``t - 1`` tokens, 0.4 % of 8 x 224 x 224.

    Args: those of :class:`EncoderBlock`, and

        temporal_init: Initial ``temporal_fc``, the layer through which time enters; see
            :func:`~mmtimesformer.models.embeddings.init_temporal`.

    Shape:
        - frames: ``b t 1+p d`` -> the same
    """

    def __init__(self, *args: Any, temporal_init: str = 'zero', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        embed_dims = self.norm1.normalized_shape[0]
        self.temporal_norm1 = nn.LayerNorm(embed_dims, eps=self.norm1.eps)
        self.temporal_attn = MODELS.build(self._attn_cfg)
        self.temporal_fc = nn.Linear(embed_dims, embed_dims)
        nn.init.zeros_(self.temporal_fc.bias)
        init_temporal(self.temporal_fc.weight, temporal_init)
        self._fused = FusedLinear()

    def forward(self, frames: Tensor, t: int, *key_bias: Tensor) -> Tensor:
        frames = frames + self.attend_time(frames)
        frames = frames + self.attend_space(frames, *key_bias)
        frames = frames + self.drop_path(self.mlp(self.norm2(frames)))
        return self.average_cls(frames) if self.training and _is_random(self.mlp) else frames

    def forward_cls(self, frames: Tensor, t: int, *key_bias: Tensor) -> Tensor:
        """Return only the class token of :meth:`forward`.

        Shape:
            - frames: ``b t 1+p d`` -> ``b 1 1 d``
        """
        frames = frames + self.attend_time(frames)
        tokens = self.norm1(rearrange(frames, 'b t n d -> (b t) n d'))
        update = self.drop_path(self.attn.forward_first_token(tokens, *key_bias))
        cls = frames[:, :1, :1] + reduce(update, '(b t) 1 d -> b 1 1 d', 'mean', t=t)
        output: Tensor = cls + self.drop_path(self.mlp(self.norm2(cls)))
        return output

    def attend_time(self, frames: Tensor) -> Tensor:
        """Return the update of every patch from its own track; that of the class token is zero.

        ``temporal_fc`` follows the output projection of the attention, with only drop path between
        them. So the two are fused, unless the user changed one of them.

        NOTE: drop path acts per track, before ``temporal_fc``, so that a dropped track still gets
        the bias of ``temporal_fc``. All published weights were trained that way.

        Shape:
            - frames: ``b t 1+p d`` -> the same
        """
        b, t, n, d = frames.shape  # len() would be a constant to torch.export: one batch size
        tracks = rearrange(self.temporal_norm1(frames)[:, :, 1:], 'b t p d -> (b p) t d')
        tracks = tracks.contiguous()  # with one video it is a view, and linear layers copy worse
        attn, fc = self.temporal_attn, self.temporal_fc
        if t * n > d and _can_fuse(attn, fc):
            weight, bias = self._fused(attn.proj, fc)
            update = self.drop_path(F.linear(attn.gather(tracks), weight, bias)) + fc.bias
        else:
            update = fc(self.drop_path(attn(tracks)))
        update = rearrange(update, '(b p) t d -> b t p d', b=b)
        return F.pad(update, (0, 0, 1, 0))  # zero for the class token

    def attend_space(self, frames: Tensor, *key_bias: Tensor) -> Tensor:
        """Return the update of every token from its own frame; drop path acts per frame.

        Shape:
            - frames: ``b t 1+p d`` -> the same
        """
        t = frames.shape[1]
        tokens = rearrange(frames, 'b t n d -> (b t) n d')
        update = self.drop_path(self.attn(self.norm1(tokens), *key_bias))
        return self.average_cls(rearrange(update, '(b t) n d -> b t n d', t=t))

    def average_cls(self, frames: Tensor) -> Tensor:
        """Replace each frame's copy of the class token by their mean, so that it is one token.

        Shape:
            - frames: ``b t 1+p d`` -> the same
        """
        cls = frames[:, :, :1].mean(1, keepdim=True).expand(-1, frames.shape[1], -1, -1)
        return torch.cat([cls, frames[:, :, 1:]], dim=2)


def _is_random(mlp: nn.Module) -> bool:
    """Return whether an MLP may treat copies of one token differently in training."""
    return not (type(mlp) is FFN and mlp.drop.p == 0)


def _can_fuse(attn: nn.Module, fc: nn.Module) -> bool:
    """Return whether the output of an attention passes only through its ``proj`` and ``fc``.

    A custom attention, a layer that is not plain (LoRA, quantised weights, a hook), and dropout
    between the two need both layers run.
    """
    return (
        type(attn) is SelfAttention
        and is_plain(attn.proj)
        and is_plain(fc)
        and not (attn.training and attn.proj_drop.p)
        and not any(map(has_hooks, (attn, attn.proj_drop)))
    )
