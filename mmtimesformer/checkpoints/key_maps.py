"""Key maps: parameter names of each implementation.

One table per format, row by row in the order of the forward pass: our name (which is the official
one) on the left, theirs on the right. ``{i}`` is the block, ``{p}`` stands for ``weight`` and
``bias``; JAX calls these ``kernel`` (``{k}``) in a projection and ``scale`` (``{s}``) in a norm.
A tuple on the right is joined row-wise into one tensor, such as query, key and value.

The forward pass of all these systems agrees once names and layouts do, so a table is all that
differs. Nothing here reads a file; see ``readers`` and ``convert``.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

StateDict = Mapping[str, Tensor]
Row = str | tuple[str, ...]

TEMPORAL_ROWS = (
    'blocks.{i}.temporal_norm1.{p}',
    'blocks.{i}.temporal_attn.qkv.{p}',
    'blocks.{i}.temporal_attn.proj.{p}',
    'blocks.{i}.temporal_fc.{p}',
)


def _without_time(rows: Mapping[str, Row]) -> dict[str, Row]:
    return {k: v for k, v in rows.items() if k != 'time_embed' and k not in TEMPORAL_ROWS}


CANONICAL_ROWS: dict[str, Row] = {
    row: row
    for row in (
        'cls_token',
        'pos_embed',
        'time_embed',
        'patch_embed.proj.{p}',
        *TEMPORAL_ROWS,
        'blocks.{i}.norm1.{p}',
        'blocks.{i}.attn.qkv.{p}',
        'blocks.{i}.attn.proj.{p}',
        'blocks.{i}.norm2.{p}',
        'blocks.{i}.mlp.fc1.{p}',
        'blocks.{i}.mlp.fc2.{p}',
        'norm.{p}',
    )
}

# `attentions.0` is temporal in the divided layout and the only attention in the other.
_MMACTION2_BLOCK = 'transformer_layers.layers.{i}.'
MMACTION2_DIVIDED: dict[str, Row] = {
    'cls_token': 'cls_token',
    'pos_embed': 'pos_embed',
    'time_embed': 'time_embed',
    'patch_embed.proj.{p}': 'patch_embed.projection.{p}',
    'blocks.{i}.temporal_norm1.{p}': _MMACTION2_BLOCK + 'attentions.0.norm.{p}',
    'blocks.{i}.temporal_attn.qkv.{p}': _MMACTION2_BLOCK + 'attentions.0.attn.in_proj_{p}',
    'blocks.{i}.temporal_attn.proj.{p}': _MMACTION2_BLOCK + 'attentions.0.attn.out_proj.{p}',
    'blocks.{i}.temporal_fc.{p}': _MMACTION2_BLOCK + 'attentions.0.temporal_fc.{p}',
    'blocks.{i}.norm1.{p}': _MMACTION2_BLOCK + 'attentions.1.norm.{p}',
    'blocks.{i}.attn.qkv.{p}': _MMACTION2_BLOCK + 'attentions.1.attn.in_proj_{p}',
    'blocks.{i}.attn.proj.{p}': _MMACTION2_BLOCK + 'attentions.1.attn.out_proj.{p}',
    'blocks.{i}.norm2.{p}': _MMACTION2_BLOCK + 'ffns.0.norm.{p}',
    'blocks.{i}.mlp.fc1.{p}': _MMACTION2_BLOCK + 'ffns.0.layers.0.0.{p}',
    'blocks.{i}.mlp.fc2.{p}': _MMACTION2_BLOCK + 'ffns.0.layers.1.{p}',
    'norm.{p}': 'norm.{p}',
}
MMACTION2_JOINT: dict[str, Row] = {
    **{row: theirs for row, theirs in MMACTION2_DIVIDED.items() if row not in TEMPORAL_ROWS},
    'blocks.{i}.norm1.{p}': _MMACTION2_BLOCK + 'norms.0.{p}',
    'blocks.{i}.attn.qkv.{p}': _MMACTION2_BLOCK + 'attentions.0.attn.in_proj_{p}',
    'blocks.{i}.attn.proj.{p}': _MMACTION2_BLOCK + 'attentions.0.attn.out_proj.{p}',
    'blocks.{i}.norm2.{p}': _MMACTION2_BLOCK + 'norms.1.{p}',
}

HUGGINGFACE: dict[str, Row] = {
    'cls_token': 'embeddings.cls_token',
    'pos_embed': 'embeddings.position_embeddings',
    'time_embed': 'embeddings.time_embeddings',
    'patch_embed.proj.{p}': 'embeddings.patch_embeddings.projection.{p}',
    'blocks.{i}.temporal_norm1.{p}': 'encoder.layer.{i}.temporal_layernorm.{p}',
    'blocks.{i}.temporal_attn.qkv.{p}': 'encoder.layer.{i}.temporal_attention.attention.qkv.{p}',
    'blocks.{i}.temporal_attn.proj.{p}': 'encoder.layer.{i}.temporal_attention.output.dense.{p}',
    'blocks.{i}.temporal_fc.{p}': 'encoder.layer.{i}.temporal_dense.{p}',
    'blocks.{i}.norm1.{p}': 'encoder.layer.{i}.layernorm_before.{p}',
    'blocks.{i}.attn.qkv.{p}': 'encoder.layer.{i}.attention.attention.qkv.{p}',
    'blocks.{i}.attn.proj.{p}': 'encoder.layer.{i}.attention.output.dense.{p}',
    'blocks.{i}.norm2.{p}': 'encoder.layer.{i}.layernorm_after.{p}',
    'blocks.{i}.mlp.fc1.{p}': 'encoder.layer.{i}.intermediate.dense.{p}',
    'blocks.{i}.mlp.fc2.{p}': 'encoder.layer.{i}.output.dense.{p}',
    'norm.{p}': 'layernorm.{p}',
}
HUGGINGFACE_VIT: dict[str, Row] = {
    **_without_time(HUGGINGFACE),
    'blocks.{i}.attn.qkv.{p}': (
        'encoder.layer.{i}.attention.attention.query.{p}',
        'encoder.layer.{i}.attention.attention.key.{p}',
        'encoder.layer.{i}.attention.attention.value.{p}',
    ),
}

MMPRETRAIN: dict[str, Row] = {
    'cls_token': 'cls_token',
    'pos_embed': 'pos_embed',
    'patch_embed.proj.{p}': 'patch_embed.projection.{p}',
    'blocks.{i}.norm1.{p}': 'layers.{i}.ln1.{p}',
    'blocks.{i}.attn.qkv.{p}': 'layers.{i}.attn.qkv.{p}',
    'blocks.{i}.attn.proj.{p}': 'layers.{i}.attn.proj.{p}',
    'blocks.{i}.norm2.{p}': 'layers.{i}.ln2.{p}',
    'blocks.{i}.mlp.fc1.{p}': 'layers.{i}.ffn.layers.0.0.{p}',
    'blocks.{i}.mlp.fc2.{p}': 'layers.{i}.ffn.layers.1.{p}',
    'norm.{p}': 'ln1.{p}',
}


def _jax_rows(positions: str, attention: str, norm2: str, mlp: str) -> dict[str, Row]:
    """Return Google's two naming schemes, which number the layers of a block differently."""
    block = 'Transformer/encoderblock_{i}/'
    return {
        'cls_token': 'cls',
        'pos_embed': positions,
        'patch_embed.proj.{p}': 'embedding/{k}',
        'blocks.{i}.norm1.{p}': block + 'LayerNorm_0/{s}',
        'blocks.{i}.attn.qkv.{p}': (
            block + attention + '/query/{k}',
            block + attention + '/key/{k}',
            block + attention + '/value/{k}',
        ),
        'blocks.{i}.attn.proj.{p}': block + attention + '/out/{k}',
        'blocks.{i}.norm2.{p}': block + norm2 + '/{s}',
        'blocks.{i}.mlp.fc1.{p}': block + mlp + '/Dense_0/{k}',
        'blocks.{i}.mlp.fc2.{p}': block + mlp + '/Dense_1/{k}',
        'norm.{p}': 'Transformer/encoder_norm/{s}',
    }


JAX = _jax_rows(
    positions='Transformer/posembed_input/pos_embedding',
    attention='MultiHeadDotProductAttention_1',
    norm2='LayerNorm_2',
    mlp='MlpBlock_3',
)
BIG_VISION = _jax_rows(
    positions='pos_embedding',
    attention='MultiHeadDotProductAttention_0',
    norm2='LayerNorm_1',
    mlp='MlpBlock_0',
)


def _as_is(ours: str, weight: Tensor) -> Tensor:
    return weight


def _transposed(ours: str, weight: Tensor) -> Tensor:
    """Transpose matrices: Paddle and JAX multiply tokens by the matrix, torch by its transpose."""
    if weight.ndim == 2:
        return rearrange(weight, 'i o -> o i').contiguous()
    return weight


def _from_jax(ours: str, weight: Tensor) -> Tensor:
    """Join the heads that JAX keeps apart, and put output dimensions first."""
    if ours == 'patch_embed.proj.weight':
        return rearrange(weight, 'h w i o -> o i h w').contiguous()
    if ours.endswith('attn.qkv.weight'):
        return rearrange(weight, 'd heads c -> (heads c) d').contiguous()
    if ours.endswith('attn.qkv.bias'):
        return rearrange(weight, 'heads c -> (heads c)')
    if ours.endswith('attn.proj.weight'):
        return rearrange(weight, 'heads c d -> d (heads c)').contiguous()
    return _transposed(ours, weight)


def _from_big_vision(ours: str, weight: Tensor) -> Tensor:
    """Convert as JAX; newer files have no position of the class token, which is zero here."""
    if ours == 'pos_embed' and is_square(weight.shape[1]):
        return torch.cat([weight.new_zeros(1, 1, weight.shape[2]), weight], dim=1)
    return _from_jax(ours, weight)


def is_square(n: int) -> bool:
    """Whether so many patches can be a square grid."""
    return math.isqrt(n) ** 2 == n


@dataclass(frozen=True)
class Format:
    """How one implementation names and lays out the weights.

    Attributes:
        name: For the command line and in metadata.
        title: For messages and load reports.
        rows: Our name to theirs, see the module's docstring.
        head: The names of the classifier, with ``{prefix}`` as found. The first one is written.
        prefixes: What may precede every other name. The first one is written.
        dropped: Patterns of keys that are dropped on purpose, each with the reason.
        orient: Converts one tensor, given our name of it, to torch's layout.
        is_video: False for an image ViT: it has no time, and time is seeded from space.
    """

    name: str
    title: str
    rows: Mapping[str, Row]
    head: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ('',)
    dropped: Mapping[str, str] | None = None
    orient: Callable[[str, Tensor], Tensor] = _as_is
    is_video: bool = True

    def names(self, prefix: str, depth: int) -> dict[str, tuple[str, int]]:
        """Return every name of this format: theirs to ours, and the place in a joined tensor."""
        return _expand(self.name, prefix, depth)

    def written_names(self, depth: int, prefix: str | None = None) -> dict[str, str]:
        """Return our names to theirs as they are written; the inverse of :meth:`names`."""
        prefix = self.prefixes[0] if prefix is None else prefix
        written: dict[str, str] = {}
        for theirs, (ours, _) in self.names(prefix, depth).items():
            written.setdefault(ours, theirs)
        return written

    def reason_to_drop(self, key: str) -> str | None:
        """Return why a key is dropped on purpose, or None if it is not."""
        for pattern, reason in (self.dropped or {}).items():
            if re.fullmatch(pattern, key):
                return reason
        return None


_OF_JAX = {
    r'(.*/)?pre_logits/.*': 'a layer between features and classifier of images',
    r'opt/state/.*|(.*/)?step': 'state of the optimiser',
}
_OF_TRAINING = {r'data_preprocessor\..*': 'normalisation of the input, kept in the config'}

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format(
            name='mmtimesformer',
            title='mmtimesformer',
            rows=CANONICAL_ROWS,
            head=('cls_head.fc_cls.{p}', 'head.{p}'),
            prefixes=('backbone.', ''),
            dropped=_OF_TRAINING,
        ),
        Format(
            name='official',
            title='the official TimeSformer',
            rows=CANONICAL_ROWS,
            head=('{prefix}head.{p}',),
            prefixes=('model.',),
        ),
        Format(
            name='mmaction2',
            title="MMAction2's TimeSformer, divided",
            rows=MMACTION2_DIVIDED,
            head=('cls_head.fc_cls.{p}',),
            prefixes=('backbone.', ''),
            dropped=_OF_TRAINING,
        ),
        Format(
            name='mmaction2_joint',
            title="MMAction2's TimeSformer, joint or space-only",
            rows=MMACTION2_JOINT,
            head=('cls_head.fc_cls.{p}',),
            prefixes=('backbone.', ''),
            dropped=_OF_TRAINING,
        ),
        Format(
            name='huggingface',
            title="Hugging Face's TimeSformer",
            rows=HUGGINGFACE,
            head=('classifier.{p}',),
            prefixes=('timesformer.', ''),
        ),
        Format(
            name='paddle',
            title="PaddleVideo's TimeSformer",
            rows=CANONICAL_ROWS,
            head=('head.fc.{p}',),
            prefixes=('backbone.', ''),
            dropped={'StructuredToParameterName@@': "Paddle's own list of names"},
            orient=_transposed,
        ),
        Format(
            name='paddle_vit',
            title="Paddle's ViT",
            rows=_without_time(CANONICAL_ROWS),
            head=('head.{p}',),
            dropped={'StructuredToParameterName@@': "Paddle's own list of names"},
            orient=_transposed,
            is_video=False,
        ),
        Format(
            name='timm_vit',
            title="timm's ViT",
            rows=_without_time(CANONICAL_ROWS),
            head=('head.{p}',),
            dropped={r'pre_logits\.fc\..*': 'a layer between features and classifier of images'},
            is_video=False,
        ),
        Format(
            name='jax_vit',
            title="Google's ViT (JAX)",
            rows=JAX,
            head=('{prefix}head/{k}',),
            prefixes=('', 'opt/target/', 'params/'),
            dropped=_OF_JAX,
            orient=_from_jax,
            is_video=False,
        ),
        Format(
            name='big_vision_vit',
            title="big_vision's ViT (JAX)",
            rows=BIG_VISION,
            head=('{prefix}head/{k}',),
            prefixes=('', 'params/', 'params/img/', 'opt/target/'),
            dropped=_OF_JAX,
            orient=_from_big_vision,
            is_video=False,
        ),
        Format(
            name='huggingface_vit',
            title="Hugging Face's ViT",
            rows=HUGGINGFACE_VIT,
            head=('classifier.{p}',),
            prefixes=('vit.', ''),
            dropped={r'(vit\.)?pooler\.dense\..*': 'a layer between features and classifier'},
            is_video=False,
        ),
        Format(
            name='mmpretrain_vit',
            title="MMPretrain's ViT",
            rows=MMPRETRAIN,
            head=('head.layers.head.{p}',),
            prefixes=('backbone.', ''),
            dropped={
                r'head\.layers\.pre_logits\..*': 'a layer between features and classifier',
                **_OF_TRAINING,
            },
            is_video=False,
        ),
        Format(
            name='mmaction2_vit',
            title="an image ViT in MMAction2's names",
            rows=_without_time(MMACTION2_JOINT),
            is_video=False,
        ),
    )
}

_LEAVES = (('weight', 'kernel', 'scale'), ('bias', 'bias', 'bias'))


MOST_BLOCKS = 512  # that names are made for, whatever a file holds; the deepest ViT has 56


@lru_cache(maxsize=64)
def _expand(name: str, prefix: str, depth: int) -> dict[str, tuple[str, int]]:
    form = FORMATS[name]
    patterns = [
        (ours, prefix + part, place)
        for ours, theirs in form.rows.items()
        for place, part in enumerate((theirs,) if isinstance(theirs, str) else theirs)
    ]
    patterns += [('head.{p}', head.replace('{prefix}', prefix), 0) for head in form.head]
    names: dict[str, tuple[str, int]] = {}
    for ours, theirs, place in patterns:
        for i in range(depth) if '{i}' in ours else (0,):
            for p, k, s in _LEAVES if '{p}' in ours else _LEAVES[:1]:
                expanded = (
                    theirs.replace('{i}', str(i))
                    .replace('{p}', p)
                    .replace('{k}', k)
                    .replace('{s}', s)
                )
                names[expanded] = ours.replace('{i}', str(i)).replace('{p}', p), place
    return names


def depth_of(keys: Collection[str]) -> int:
    """Return the number of blocks in names of any format."""
    numbers = (re.search(r'(?:blocks|layers?|encoderblock)[._](\d{1,9})', key) for key in keys)
    last = max((int(number[1]) for number in numbers if number), default=0)
    return min(1 + last, len(keys), MOST_BLOCKS)


def detect(state_dict: StateDict) -> tuple[Format, str] | None:
    """Detect the format of weights by their names and shapes alone.

    The format and prefix that explain most keys win, so that a missing or an unknown key is
    reported later instead of hiding the format.

    Returns:
        The format and the prefix of its names; None where no format explains at
        least half of the keys.
    """
    depth = depth_of(state_dict)
    best: tuple[int, Format, str] | None = None
    for form in FORMATS.values():
        for prefix in form.prefixes:
            names = form.names(prefix, depth)
            known = sum(key in names for key in state_dict)
            known += sum(form.reason_to_drop(key) is not None for key in state_dict)
            if (best is None or known > best[0]) and _fits(form, prefix, state_dict, names):
                best = known, form, prefix
    if best is None or 2 * best[0] < len(state_dict):
        return None
    return best[1:]


def _fits(
    form: Format, prefix: str, state_dict: StateDict, names: dict[str, tuple[str, int]]
) -> bool:
    """Distinguish formats with the same names.

    Paddle's matrices are transposed; the official files and timm's have the same names otherwise.
    Without a prefix and without temporal weights it is an image ViT.
    """
    ours = {names[key][0]: state_dict[key] for key in state_dict if key in names}
    if not any(name.startswith('blocks.') for name in ours):
        return False
    has_time = any('temporal' in name or name == 'time_embed' for name in ours)
    if form.is_video and prefix == '' and form.name != 'huggingface' and not has_time:
        return False
    qkv = next((w for name, w in ours.items() if name.endswith('attn.qkv.weight')), None)
    is_transposed = qkv is not None and qkv.ndim == 2 and 3 * qkv.shape[0] == qkv.shape[1]
    return is_transposed == (form.orient is _transposed)


def unstack_blocks(state_dict: StateDict) -> StateDict:
    """Split the blocks that JAX has stacked along a leading axis ("scanned layers")."""
    stacked = re.compile(r'(.*Transformer/encoderblock)/(.*)')
    if not any(stacked.fullmatch(key) for key in state_dict):
        return state_dict
    unstacked: dict[str, Tensor] = {}
    for key, weight in state_dict.items():
        match = stacked.fullmatch(key)
        if match is None:
            unstacked[key] = weight
        else:
            if weight.ndim < 1 or len(weight) > MOST_BLOCKS:
                raise ValueError(
                    f'the weights have {key[:80]!a} of shape {tuple(weight.shape)}, whose first '
                    f'axis should be that of at most {MOST_BLOCKS} blocks; get the file again'
                )
            for i, one in enumerate(weight):
                unstacked[f'{match[1]}_{i}/{match[2]}'] = one
    return unstacked
