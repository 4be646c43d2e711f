"""Multi-head self-attention over the tokens of a sequence, whatever the sequence is."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from mmengine.model import trunc_normal_init
from torch import Tensor, nn

from mmtimesformer.models.cpu_matmul import has_amx, is_onednn_used
from mmtimesformer.models.fused_linear import is_exported
from mmtimesformer.registry import MODELS

SEQUENCES = 65_535  # limit of the second axis of a CUDA grid
TILE = 128  # queries of one tile of an attention kernel
SHORT = (
    24  # tokens up to which a CPU multiplies two matrices faster than it runs an attention kernel
)
MEDIUM = 512  # tokens whose attention weights a training step can keep
SCORES = 4 * 2**20  # numbers of attention scores that stay in the cache of a CPU


@MODELS.register_module()
class SelfAttention(nn.Module):
    """Every token of a sequence attends to every token of the same sequence.

    The caller chooses the sequences: tracks for attention over time, frames for attention over
    space.

    Args:
        embed_dims: Width of a token.
        num_heads: Attention heads; must divide ``embed_dims``.
        qkv_bias: Whether queries, keys and values have a bias.
        attn_drop_rate: Fraction of attention weights dropped in training, 0 to 1.
        drop_rate: Fraction of output channels dropped in training, 0 to 1.

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

    def forward(self, tokens: Tensor, *key_bias: Tensor) -> Tensor:
        output: Tensor = self.proj_drop(self.proj(self.gather(tokens, *key_bias)))
        return output

    def gather(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return the weighted values of every token, heads side by side, before the projection.

        Shape:
            - tokens: ``b n d`` -> ``b n d``
            - key_bias: ``b n``, added to the scores of each key
        """
        dropout = self.attn_drop_rate if self.training else 0.0
        q, k, v = self.qkv_heads(tokens)
        return rearrange(attend(q, k, v, dropout, key_bias), 'b heads n c -> b n (heads c)')

    def qkv_heads(self, tokens: Tensor) -> Tensor:
        """Return queries, keys and values of every token.

        Shape:
            - tokens: ``b n d`` -> ``3 b heads n c``
        """
        output: Tensor = rearrange(
            self.qkv(tokens), 'b n (qkv heads c) -> qkv b heads n c', qkv=3, heads=self.num_heads
        )
        return output

    def attention_weights(self, tokens: Tensor, queries: slice = slice(None)) -> Tensor:
        """Return the attention weights, which the forward pass uses and never forms.

        Only attention maps need them. ``attention_weights(tokens) @ qkv_heads(tokens)[2]`` is
        :meth:`gather` without dropout. A subclass that overrides :meth:`gather` or :meth:`forward`
        returns its own weights here.

        Args:
            tokens: The sequences.
            queries: Which tokens of each sequence are queries; the full map of a long one is large.

        Shape:
            - tokens: ``b n d`` -> ``b heads queries n``; each row sums to one
        """
        q, k, _ = self.qkv_heads(tokens)
        output: Tensor = (q[:, :, queries] * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)
        return output

    def forward_first_token(self, tokens: Tensor, key_bias: Tensor | None = None) -> Tensor:
        """Return what :meth:`forward` returns for the first token of each sequence.

        A single query needs neither keys nor values. Its score with a token ``x`` is
        ``q . (Wk x + bk) = (q Wk) . x + q . bk``, and the last term, the same for every ``x``,
        cancels in the softmax. The result is ``sum a (Wv x + bv) = Wv (sum a x) + bv``.

        Shape:
            - tokens: ``b n d`` -> ``b 1 d``
            - key_bias: ``b n``, added to the scores of each key
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
        if key_bias is not None:
            scores = scores + key_bias[:, None].to(scores.dtype)
        dropout = self.attn_drop_rate if self.training else 0.0
        weights = F.dropout(scores.softmax(-1), dropout)  # b heads n
        total = weights.sum(-1, keepdim=True)  # 1, but for dropout
        values = torch.einsum('b h d, h c d -> b h c', weights @ tokens, wv) + total * bv
        output: Tensor = self.proj_drop(self.proj(rearrange(values, 'b heads c -> b 1 (heads c)')))
        return output


def attend(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, key_bias: Tensor | None = None
) -> Tensor:
    """Return ``softmax(q k^T / sqrt(c)) v``, computed as suits the device and the shape.

    CUDA kernels work in tiles of ``TILE`` queries, of which a track of 8 frames fills a sixteenth,
    and accept at most ``SEQUENCES`` sequences. So short sequences are packed, and more than that
    are computed in portions. On a CPU two matrix products are faster where
    :func:`is_faster_by_matmul`.

    Shape:
        - q, k, v: ``b heads n c`` -> the same
        - key_bias: ``b n``, added to the scores of each key
    """
    bias = None if key_bias is None else key_bias[:, None, None].to(q.dtype)
    if q.device.type == 'cpu' and is_faster_by_matmul(q):
        return attend_by_matmul(q, k, v, dropout, bias)
    if bias is not None:
        return attend_in_portions(q, k, v, SEQUENCES, dropout, bias)
    b, _, n, _ = q.shape
    if not q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    if (group := group_of(b, n)) > 1:
        return attend_packed(q, k, v, group, dropout)
    return attend_in_portions(q, k, v, SEQUENCES, dropout)


def is_faster_by_matmul(q: Tensor) -> bool:
    """Return whether a CPU attends faster by two matrix products than by PyTorch's kernel.

    Measured on an AMD processor with AVX-512 BF16: on tracks of up to 24 frames; on frames where
    oneDNN computes float32; in bfloat16 on sequences of any length, since without AMX the kernel
    has no fast matrix product for it. In training, the attention weights of long sequences would
    take too much memory. What is exported keeps the kernel, which is one node of a graph.
    """
    if is_exported():
        return False
    n = q.shape[2]
    if q.dtype == torch.bfloat16 and not has_amx():
        return n <= MEDIUM or not torch.is_grad_enabled()
    return n <= (MEDIUM if q.dtype == torch.float32 and is_onednn_used() else SHORT)


def attend_by_matmul(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, bias: Tensor | None = None
) -> Tensor:
    """Form the attention weights of a few queries at a time, so that they stay in the cache.

    Shape:
        - q, k, v: ``b heads n c`` -> the same
        - bias: ``b 1 1 n``, added to the scores of each key
    """
    b, heads, n, c = q.shape
    portion = max(1, SCORES // (heads * n * min(n, TILE)))
    if portion < b:
        starts = range(0, b, portion)
        parts = [[x if x is None else x[i : i + portion] for i in starts] for x in (q, k, v, bias)]
        return torch.cat(
            [attend_by_matmul(q, k, v, dropout, bias) for q, k, v, bias in zip(*parts, strict=True)]
        )
    keys, v = k.contiguous().mT, v.contiguous()
    rows = []
    for queries in (q * c**-0.5).split(TILE, 2):
        scores = queries @ keys if bias is None else queries @ keys + bias
        rows.append(F.dropout(scores.softmax(-1), dropout) @ v)
    return torch.cat(rows, 2) if len(rows) > 1 else rows[0]


def group_of(b: int, n: int) -> int:
    """Return how many of ``b`` sequences of ``n`` tokens to pack into one tile, in equal groups."""
    return next((g for g in range(TILE // n, 1, -1) if b % g == 0), 1)


def attend_packed(q: Tensor, k: Tensor, v: Tensor, group: int, dropout: float = 0.0) -> Tensor:
    """Pack sequences into longer ones with a block-diagonal mask: each attends to itself only.

    Shape:
        - q, k, v: ``(b group) heads n c`` -> the same
    """
    n = q.shape[2]
    q, k, v = (rearrange(x, '(b g) heads n c -> b heads (g n) c', g=group) for x in (q, k, v))
    sequence = torch.arange(group * n, device=q.device) // n
    mask = sequence[:, None] == sequence
    packed = attend_in_portions(q, k, v, SEQUENCES, dropout, mask)
    return rearrange(packed, 'b heads (g n) c -> (b g) heads n c', g=group)


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
        - mask: ``n n``, for every sequence, or ``b 1 1 n``
    """
    qkv = q.split(portion), k.split(portion), v.split(portion)
    masks: Sequence[Tensor | None] = [mask] * len(qkv[0])
    if mask is not None and mask.dim() > 2:
        masks = mask.split(portion)
    results = [
        F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        for q, k, v, mask in zip(*qkv, masks, strict=True)
    ]
    return results[0] if len(results) == 1 else torch.cat(results)
