"""Multi-head self-attention over any tokens; it knows neither space nor time."""

import torch
import torch.nn.functional as F
from einops import rearrange
from mmengine.model import trunc_normal_init
from torch import Tensor, nn

from mmtimesformer.registry import MODELS

SEQUENCES = 65_535  # what a CUDA grid takes along its second axis
TILE = 128  # queries that an attention kernel works on at once


@MODELS.register_module()
class SelfAttention(nn.Module):
    """Every token of a sequence looks at every token of the same sequence.

    Which tokens make a sequence is the caller's business: a block that wants attention over time
    hands in tracks, one that wants attention over space hands in frames.

    Args:
        embed_dims: Width of a token.
        num_heads: Attention heads; must divide ``embed_dims``.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop_rate: Share of attention weights dropped in training, 0 to 1.
        drop_rate: Share of output channels dropped in training, 0 to 1.

    Shape:
        - tokens: ``b n d`` -> ``b n d``, for any ``b`` and ``n``

    Raises:
        ValueError: ``num_heads`` does not divide ``embed_dims``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dims % num_heads:
            raise ValueError(
                f'embed_dims={embed_dims} is not divisible by num_heads={num_heads}; '
                'set backbone.num_heads to a divisor'
            )
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(drop_rate)
        trunc_normal_init(self.qkv, std=0.02)
        trunc_normal_init(self.proj, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj_drop(self.proj(self.look(tokens)))

    def look(self, tokens: Tensor) -> Tensor:
        """Gather what every token sees, heads side by side, before the output projection.

        Shape:
            - tokens: ``b n d`` -> ``b n d``
        """
        dropout = self.attn_drop_rate if self.training else 0.0
        q, k, v = self.project(tokens)
        seen = attend(q, k, v, dropout)
        return rearrange(seen, 'b heads n c -> b n (heads c)')

    def project(self, tokens: Tensor) -> Tensor:
        """Ask, offer and answer: queries, keys and values of every token.

        Shape:
            - tokens: ``b n d`` -> ``3 b heads n c``
        """
        return rearrange(
            self.qkv(tokens), 'b n (qkv heads c) -> qkv b heads n c', qkv=3, heads=self.num_heads
        )

    def weights(self, tokens: Tensor, queries: slice = slice(None)) -> Tensor:
        """Return how much each token looks at each other: what :meth:`look` uses and never forms.

        Only maps of the attention ask for it. ``weights(tokens) @ project(tokens)[2]`` is what
        :meth:`look` returns, without dropout; an attention of your own that looks in another way
        says its weights here.

        Args:
            tokens: The sequences.
            queries: Which tokens of each sequence look; the whole map of a long one is large.

        Shape:
            - tokens: ``b n d`` -> ``b heads queries n``; each row sums to one
        """
        q, k, _ = self.project(tokens)
        return (q[:, :, queries] @ k.mT * q.shape[-1] ** -0.5).softmax(-1)

    def first(self, tokens: Tensor) -> Tensor:
        """Do what :meth:`forward` does, for the first token of each sequence alone.

        With a single query neither keys nor values need to be formed. Its score with a token ``x``
        is ``q . (Wk x + bk) = (q Wk) . x + q . bk``, and the last term, the same for every ``x``,
        cancels in the softmax. What it sees is ``sum a (Wv x + bv) = Wv (sum a x) + bv``.

        Shape:
            - tokens: ``b n d`` -> ``b 1 d``
        """
        wq, wk, wv = rearrange(
            self.qkv.weight, '(qkv heads c) d -> qkv heads c d', qkv=3, heads=self.num_heads
        )
        bq, bv = 0.0, 0.0
        if self.qkv.bias is not None:
            bq, _, bv = rearrange(
                self.qkv.bias, '(qkv heads c) -> qkv heads c', qkv=3, heads=self.num_heads
            )
        q = torch.einsum('b d, h c d -> b h c', tokens[:, 0], wq) + bq
        scores = torch.einsum('b h c, h c d -> b h d', q * wq.shape[1] ** -0.5, wk) @ tokens.mT
        dropout = self.attn_drop_rate if self.training else 0.0
        weights = F.dropout(scores.softmax(-1), dropout)  # b heads n
        total = weights.sum(-1, keepdim=True)  # 1, but for dropout
        seen = torch.einsum('b h d, h c d -> b h c', weights @ tokens, wv) + total * bv
        return self.proj_drop(self.proj(rearrange(seen, 'b heads c -> b 1 (heads c)')))


def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Return ``softmax(q k^T / sqrt(c)) v``, by the way that suits the device and the shape.

    On CUDA, kernels work in tiles of ``TILE`` queries, of which a track of 8 frames fills a
    sixteenth; and they take ``SEQUENCES`` sequences at most. So short sequences are packed, and
    what is still too many goes in portions.

    Shape:
        - q, k, v: ``b heads n c`` -> the same
    """
    b, _, n, _ = q.shape
    if not q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    if (group := group_of(b, n)) > 1:
        return attend_packed(q, k, v, group, dropout)
    return attend_in_portions(q, k, v, SEQUENCES, dropout)


def group_of(b: int, n: int) -> int:
    """Return how many of ``b`` sequences of ``n`` tokens to pack: all groups alike, in one tile."""
    return next((g for g in range(TILE // n, 1, -1) if b % g == 0), 1)


def attend_packed(q: Tensor, k: Tensor, v: Tensor, group: int, dropout: float = 0.0) -> Tensor:
    """Let several sequences be one, in which each sees itself alone: a block-diagonal mask.

    Shape:
        - q, k, v: ``(b group) heads n c`` -> the same
    """
    n = q.shape[2]
    q, k, v = (rearrange(x, '(b g) heads n c -> b heads (g n) c', g=group) for x in (q, k, v))
    sequence = torch.arange(group * n, device=q.device) // n
    mask = sequence[:, None] == sequence
    seen = attend_in_portions(q, k, v, SEQUENCES, dropout, mask)
    return rearrange(seen, 'b heads (g n) c -> (b g) heads n c', g=group)


def attend_in_portions(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    portion: int,
    dropout: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Attend to ``portion`` sequences at a time.

    Shape:
        - q, k, v: ``b heads n c`` -> the same
    """
    seen = [
        F.scaled_dot_product_attention(*some, attn_mask=mask, dropout_p=dropout)
        for some in zip(q.split(portion), k.split(portion), v.split(portion), strict=True)
    ]
    return seen[0] if len(seen) == 1 else torch.cat(seen)
