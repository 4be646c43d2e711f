"""Who may look at whom: one block for each of the paper's attention schemes.

=======================  =================================================================
scheme                   a patch looks at
=======================  =================================================================
divided space-time       first its own track (its place in all frames), then its own frame
joint space-time         every patch of every frame
space-only               its own frame
=======================  =================================================================
"""

from typing import Any

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn

from mmtimesformer.models.embeddings import init_temporal
from mmtimesformer.registry import MODELS


class DropPath(nn.Module):
    """Stochastic depth: in training, drop whole rows of a residual branch.

    Rows that stay are scaled up by ``1 / (1 - drop_rate)``, so the expectation does not move.

    Args:
        drop_rate: Chance of a row to be dropped; 0 drops none, 1 is not allowed.

    Shape:
        - rows: ``b n d`` -> ``b n d``; one draw for each of the ``b`` rows
    """

    def __init__(self, drop_rate: float) -> None:
        super().__init__()
        if not 0 <= drop_rate < 1:
            raise ValueError(
                f'drop_path_rate={drop_rate} is not a chance below 1; '
                'set backbone.drop_path_rate to 0 (never) or more, and less than 1'
            )
        self.drop_rate = drop_rate

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training or self.drop_rate == 0:
            return rows
        keep = 1 - self.drop_rate
        return rows * rows.new_empty(len(rows), 1, 1).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        return f'drop_rate={self.drop_rate:.3g}'


class EncoderBlock(nn.Module):
    """The pre-norm block of the Vision Transformer, over whatever tokens it is given.

    ``tokens += attn(norm1(tokens))``, then ``tokens += mlp(norm2(tokens))``. The registered blocks
    below say what one row of tokens is. A block of your own under the same scheme takes the same
    arguments and the same two inputs.

    Args:
        embed_dims: Width of a token.
        num_heads: Attention heads; must divide ``embed_dims``.
        mlp_ratio: Width of the MLP in units of ``embed_dims``.
        qkv_bias: Whether queries, keys and values have a bias.
        drop_rate: Dropout after each projection, 0 to 1.
        attn_drop_rate: Dropout on the attention weights, 0 to 1.
        drop_path_rate: Chance of a residual row to be dropped in training, 0 to 1.
        norm_eps: Epsilon of the layer norms.
        attn_cfg: What to change in the attention: other arguments, or another ``type``.
        ffn_cfg: What to change in the MLP: other arguments, or another ``type``.
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

    def forward(self, tokens: Tensor, t: int) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))

    def class_token(self, tokens: Tensor, t: int) -> Tensor:
        """Return the class token of what :meth:`forward` returns, computed for it alone.

        In the last block nobody reads the patches any more.

        Shape:
            - tokens: ``b n d`` -> ``b 1 d``
        """
        cls = tokens[:, :1] + self.drop_path(self.attn.first(self.norm1(tokens)))
        return cls + self.drop_path(self.mlp(self.norm2(cls)))


@MODELS.register_module()
class JointSpaceTimeBlock(EncoderBlock):
    """Every token of the video looks at every other; the cost grows with ``(p * t) ** 2``.

    Args: those of :class:`EncoderBlock`.

    Shape:
        - tokens: ``b (1+p*t) d`` -> the same
    """


@MODELS.register_module()
class SpaceOnlyBlock(EncoderBlock):
    """Every frame is a picture by itself, with its own class token; frames never meet here.

    Args: those of :class:`EncoderBlock`.

    Shape:
        - tokens: ``(b t) (1+p) d`` -> the same
    """


@MODELS.register_module()
class DividedSpaceTimeBlock(EncoderBlock):
    """Look along the track, then across the frame (section 3 of the paper, eqs. 10 and 11).

    1. *Time.* Each patch looks at the same place in every frame. The class token has no place,
       so it takes no part.
    2. *Space.* Each frame's patches look at each other and at the class token. The class token is
       lent to every frame, comes back once per frame, and the mean of these goes on.
    3. The MLP.

    Args: those of :class:`EncoderBlock`, and

        temporal_init: Start of ``temporal_fc``, the layer through which time enters; see
            :func:`~mmtimesformer.models.embeddings.init_temporal`.

    Shape:
        - tokens: ``b (1+p*t) d`` -> the same
    """

    def __init__(self, *args: Any, temporal_init: str = 'zero', **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        embed_dims = self.norm1.normalized_shape[0]
        self.temporal_norm1 = nn.LayerNorm(embed_dims, eps=self.norm1.eps)
        self.temporal_attn = MODELS.build(self._attn_cfg)
        self.temporal_fc = nn.Linear(embed_dims, embed_dims)
        nn.init.zeros_(self.temporal_fc.bias)
        init_temporal(self.temporal_fc.weight, temporal_init)

    def forward(self, tokens: Tensor, t: int) -> Tensor:
        tokens = self.pass_time(tokens, t)
        tokens = tokens + self.attend_space(tokens, t)
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))

    def class_token(self, tokens: Tensor, t: int) -> Tensor:
        """Return the class token of what :meth:`forward` returns, computed for it alone.

        Shape:
            - tokens: ``b (1+p*t) d`` -> ``b 1 d``
        """
        frames = self.lend_class_token(self.pass_time(tokens, t), t)
        update = self.drop_path(self.attn.first(self.norm1(frames)))
        cls = tokens[:, :1] + reduce(update, '(b t) 1 d -> b 1 d', 'mean', t=t)
        return cls + self.drop_path(self.mlp(self.norm2(cls)))

    def pass_time(self, tokens: Tensor, t: int) -> Tensor:
        """Let time into every patch; the class token stays as it is.

        Shape:
            - tokens: ``b (1+p*t) d`` -> the same
        """
        cls, patches = tokens[:, :1], tokens[:, 1:]
        return torch.cat([cls, patches + self.attend_time(patches, t)], dim=1)

    def attend_time(self, patches: Tensor, t: int) -> Tensor:
        """Update every patch from its own track.

        NOTE: drop path acts per track, before ``temporal_fc``, so that a dropped track still gets
        the bias of ``temporal_fc``. All published weights were trained that way.

        Shape:
            - patches: ``b (p t) d`` -> ``b (p t) d``
        """
        b = patches.shape[0]  # len() would be a constant to torch.export: one batch size
        tracks = rearrange(patches, 'b (p t) d -> (b p) t d', t=t)
        update = self.drop_path(self.temporal_attn(self.temporal_norm1(tracks)))
        return rearrange(self.temporal_fc(update), '(b p) t d -> b (p t) d', b=b)

    def attend_space(self, tokens: Tensor, t: int) -> Tensor:
        """Update every patch, and the class token, from each frame; drop path acts per frame.

        Shape:
            - tokens: ``b (1+p*t) d`` -> ``b (1+p*t) d``
        """
        frames = self.lend_class_token(tokens, t)
        update = self.drop_path(self.attn(self.norm1(frames)))
        cls_update = reduce(update[:, :1], '(b t) 1 d -> b 1 d', 'mean', t=t)
        patches_update = rearrange(update[:, 1:], '(b t) p d -> b (p t) d', t=t)
        return torch.cat([cls_update, patches_update], dim=1)

    def lend_class_token(self, tokens: Tensor, t: int) -> Tensor:
        """Part the video into frames, each with the class token in front.

        Shape:
            - tokens: ``b (1+p*t) d`` -> ``(b t) (1+p) d``
        """
        cls = repeat(tokens[:, :1], 'b 1 d -> (b t) 1 d', t=t)
        patches = rearrange(tokens[:, 1:], 'b (p t) d -> (b t) p d', t=t)
        return torch.cat([cls, patches], dim=1)
