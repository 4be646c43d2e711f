"""From anybody's weights to ours, and from ours to those who read four formats.

The way in: :func:`to_canonical` detects the format, renames every key, and then, only where asked
or needed, seeds time from space, resizes the embeddings and drops a classifier of images. The way
out: :func:`to_format`. Each step writes into the
:class:`~mmtimesformer.checkpoints.load_report.LoadReport`.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor

from mmtimesformer.checkpoints.key_maps import (
    FORMATS,
    OURS,
    TEMPORAL_ROWS,
    Format,
    StateDict,
    depth_of,
    detect,
    is_square,
    unstack_blocks,
)
from mmtimesformer.checkpoints.load_report import CheckpointError, LoadReport, some
from mmtimesformer.checkpoints.metadata import complete_metadata
from mmtimesformer.resize import resize_positions, resize_times

WRITABLE = ('mmtimesformer', 'official', 'huggingface', 'mmaction2')
ATTENTION_TYPES = ('divided_space_time', 'joint_space_time', 'space_only')
Size = int | tuple[int, int]
DIMENSIONS = {'cls_token': 3, 'pos_embed': 3, 'time_embed': 3, 'patch_embed.proj.weight': 4}
HUGE_WIDTH = 1280  # of ViT-H


@dataclass
class Weights:
    """Weights under our names; the classifier is ``head.weight`` and ``head.bias``.

    Attributes:
        tensors: The weights.
        source: The format that they came in.
        attention_type: Whose they are now.
        grid: Rows and columns of ``pos_embed``, in patches; None where nothing says.
        num_heads: Attention heads, where the checkpoint tells.
        account: What became of each key.
        metadata: What the weights do not say themselves, see
            :mod:`~mmtimesformer.checkpoints.metadata`.
        named_like_ours: Whether the file may be the bare state dict of one of our models.
    """

    tensors: dict[str, Tensor]
    source: Format
    attention_type: str
    grid: tuple[int, int] | None
    num_heads: int | None = None
    load_report: LoadReport = field(default_factory=LoadReport)
    metadata: dict[str, Any] = field(default_factory=dict)
    named_like_ours: bool = False

    @property
    def depth(self) -> int:
        return depth_of(self.tensors)

    @property
    def patch_size(self) -> int:
        return self.tensors['patch_embed.proj.weight'].shape[-1]

    @property
    def img_size(self) -> tuple[int, int] | None:
        """Height and width, in pixels; None where nothing says."""
        if self.grid is None:
            return None
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    def known_size(self) -> tuple[int, int]:
        """Return the height and width, in pixels.

        Raises:
            CheckpointError: Nothing says which grid ``pos_embed`` is for.
        """
        if self.img_size is None:
            refuse_grid(self)
        return self.img_size

    @property
    def num_frames(self) -> int | None:
        time_embed = self.tensors.get('time_embed')
        return None if time_embed is None or time_embed.ndim != 3 else time_embed.shape[1]

    @property
    def has_qkv_bias(self) -> bool:
        return any(name.endswith('qkv.bias') for name in self.tensors)

    def note_clip(self, overwrite: bool = False) -> None:
        """Note the frames and size that the embeddings are for as those of the clips.

        Args:
            overwrite: Also where the source tells others; what was resized on purpose is for the
                new ones.
        """
        clip: dict[str, Any] = {'num_frames': self.num_frames}
        if self.grid is not None and min(self.grid) > 0:
            height, width = (side * self.patch_size for side in self.grid)
            clip['size'] = height if height == width else (height, width)
        clip = {key: value for key, value in clip.items() if value is not None}
        stored = self.metadata.get('preprocessing')
        stored = stored if isinstance(stored, Mapping) else {}
        self.metadata['preprocessing'] = {**stored, **clip} if overwrite else {**clip, **stored}

    def drop(self, names: Iterable[str], why: str) -> None:
        """Leave weights behind, and say why."""
        for name in names:
            if self.tensors.pop(name, None) is not None:
                self.load_report.drop(name, why)

    def describe(self) -> dict[str, Any]:
        """All that is known of these weights, for the meta of a checkpoint."""
        head = self.tensors.get('head.weight')
        classes = None if head is None else len(head)
        metadata = complete_metadata(self.metadata, self.source.name, classes, self.has_qkv_bias)
        metadata.setdefault('source', self.source.name)
        metadata |= {
            'attention_type': self.attention_type,
            'img_size': None if self.img_size is None else list(self.img_size),
            'num_frames': self.num_frames or metadata.get('num_frames'),
            'num_heads': self.num_heads or metadata.get('num_heads'),
            'patch_size': self.patch_size,
            'embed_dims': self.tensors['cls_token'].shape[-1],
            'num_layers': self.depth,
            'qkv_bias': self.has_qkv_bias,
            'num_classes': classes,
        }
        return {key: value for key, value in metadata.items() if value is not None}


def convert_state_dict(
    state_dict: StateDict,
    to: str = 'mmtimesformer',
    *,
    attention_type: str | None = None,
    num_frames: int | None = None,
    img_size: Size | None = None,
    source_size: Size | None = None,
    resize: str = 'grid',
    change_attention: bool = False,
    keep_head: bool | None = None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Turn anybody's state dict into the names and layout of one of four systems.

    Args:
        state_dict: Names and tensors, in any format of :mod:`~mmtimesformer.checkpoints.key_maps`.
        to: ``'mmtimesformer'``, ``'official'``, ``'huggingface'`` or ``'mmaction2'``.
        attention_type: What the model will be; that of the checkpoint, or divided for an image
            ViT, if not given.
        num_frames: Length of ``time_embed``; as it is, or 8 where there is none, if not given.
        img_size: Pixels that ``pos_embed`` shall be for, one number or ``(H, W)``; as it is if
            not given.
        source_size: Pixels that ``pos_embed`` is for now, where the grid is not square.
        resize: ``'grid'``, or ``'legacy-1d-nearest'`` for the official way.
        change_attention: Let a checkpoint of one attention type become another: drop what the
            other has no place for, seed what it lacks.
        keep_head: Keep the classifier; if not given, that of videos is kept, of images dropped.

    Returns:
        The state dict, and what became of each key.

    Raises:
        CheckpointError: The format is not recognised; a key is missing or unknown; attention
            types differ and ``change_attention`` is not set.

    Example:
        >>> vit, account = convert_state_dict(image_vit_state_dict, num_frames=16)
        >>> recognizer.load_state_dict(vit)
        >>> print(account.table())
    """
    weights = to_canonical(
        dict(state_dict),
        attention_type=attention_type,
        num_frames=num_frames,
        img_size=img_size,
        source_size=source_size,
        resize=resize,
        change_attention=change_attention,
        keep_head=keep_head,
    )
    weights.load_report.check()
    return to_format(weights, to), weights.load_report


def to_canonical(
    state_dict: dict[str, Tensor],
    *,
    attention_type: str | None = None,
    num_frames: int | None = None,
    img_size: Size | None = None,
    source_size: Size | None = None,
    resize: str = 'grid',
    change_attention: bool = False,
    keep_head: bool | None = None,
    metadata: Mapping[str, Any] | None = None,
    model_grid: tuple[int, int] | None = None,
    unknown_grid: bool = False,
) -> Weights:
    """Bring anybody's weights under our names, as one attention type, in one size.

    Missing and unknown keys are in the account of what comes back, not yet an error. The state
    dict is emptied on the way, so that large weights are held once; the other arguments are those
    of :func:`convert_state_dict`. Three more: ``metadata`` is the metadata of the checkpoint;
    ``model_grid`` is the rows and columns, in patches, of the model that the weights are for;
    ``unknown_grid`` accepts a checkpoint of which nothing says which grid it is for, as long as
    nothing has to be resized.
    """
    metadata = dict(metadata or {})
    weights = _rename(state_dict, metadata)
    weights.named_like_ours = _is_named_like_ours(weights)
    origin = FORMATS.get(str(metadata.get('source')), weights.source)
    is_image = not origin.is_video and metadata.get('attention_type') is None
    has = attention_type_of(weights.tensors)
    wanted = attention_type or ('divided_space_time' if is_image else has)
    _check_choice('attention_type', wanted, ATTENTION_TYPES)
    if has != wanted and not is_image and not change_attention:
        _refuse_other_attention(weights, has, wanted)
    if (is_image if keep_head is None else not keep_head) and 'head.weight' in weights.tensors:
        weights.drop(('head.weight', 'head.bias'), _why_no_head(weights, is_image))

    wanted_grid = model_grid
    if img_size is not None:
        height, width = _pair(img_size)
        _check_patches(height, width, weights.patch_size)
        wanted_grid = height // weights.patch_size, width // weights.patch_size
    weights.grid = _grid_of(weights, source_size, metadata.get('img_size'), wanted_grid, model_grid)
    if weights.grid is None and not unknown_grid:
        refuse_grid(weights)
    if origin.is_video:
        weights.note_clip()
    else:
        _check_image_vit(weights)
    if has != wanted:
        _drop_time(weights, wanted)
        if wanted == 'divided_space_time':
            seed_temporal_attention(weights)
    if wanted != 'space_only' and has == 'space_only':
        _seed_time_embed(weights, num_frames or metadata.get('num_frames') or 8)
    weights.attention_type = wanted

    _note_missing(weights)
    _check_shapes(weights)
    if num_frames is not None:
        metadata['num_frames'] = num_frames
        _resize_times(weights, num_frames, resize)
    if wanted_grid is not None:
        resize_grid(weights, wanted_grid, resize)
    return weights


def to_format(weights: Weights, to: str) -> dict[str, Tensor]:
    """Write weights in the names of one of the four systems that we write for.

    Raises:
        CheckpointError: The system cannot hold these weights.
    """
    _check_choice('to', to, WRITABLE)
    load_report = weights.load_report
    tensors = dict(weights.tensors)
    name, prefix = to, None
    if to == 'mmaction2':
        name = 'mmaction2' if weights.attention_type == 'divided_space_time' else 'mmaction2_joint'
        tensors = _with_qkv_bias(weights)
    if to == 'huggingface':
        prefix = 'timesformer.' if 'head.weight' in tensors else ''
        if weights.attention_type == 'space_only':
            load_report.warnings.append(
                "Hugging Face's forward pass for space_only is broken: the file is right, but "
                'its model does not compute what TimeSformer does'
            )
    form = FORMATS[name]
    names = form.spellings(weights.depth, prefix)
    foreign = [ours for ours in tensors if ours not in names]
    if foreign:
        raise CheckpointError(f'{form.title} has no place for {some(foreign)}', load_report)
    load_report.target = form.title
    load_report.rename(names)
    return {names[ours]: tensor for ours, tensor in tensors.items()}


def expected_names(
    attention_type: str, depth: int, qkv_bias: bool = True, head: bool = False
) -> list[str]:
    """Our names of a whole model, in the order of the forward pass."""
    rows = [
        row
        for row in OURS
        if not (row in TEMPORAL_ROWS and attention_type != 'divided_space_time')
        and not (row == 'time_embed' and attention_type == 'space_only')
    ]
    if head:
        rows.append('head.{p}')
    return [
        row.replace('{i}', str(i)).replace('{p}', leaf)
        for row in rows
        for i in (range(depth) if '{i}' in row else (0,))
        for leaf in (('weight', 'bias') if '{p}' in row else ('',))
        if qkv_bias or not (row.endswith('qkv.{p}') and leaf == 'bias')
    ]


def attention_type_of(names: Collection[str]) -> str:
    """The attention type that a model of these names, ours, has."""
    if any('.temporal_' in name for name in names):
        return 'divided_space_time'
    return 'joint_space_time' if 'time_embed' in names else 'space_only'


def seed_temporal_attention(weights: Weights) -> None:
    """Let time start as a copy of space, behind a projection of zero.

    Each block's temporal attention and norm are copies of its spatial ones; ``temporal_fc`` is
    zero, so that at first time adds nothing and every frame is seen as the image ViT sees it.

    Raises:
        CheckpointError: There are temporal weights already; they would be overwritten.
    """
    tensors = weights.tensors
    trained = [name for name in tensors if '.temporal_' in name]
    if trained:
        raise CheckpointError(
            f'the checkpoint has temporal weights already ({some(trained, 2)}): seeding would '
            'overwrite them; load them as divided_space_time instead',
            weights.load_report,
        )
    for name in [name for name in tensors if '.norm1.' in name or '.attn.' in name]:
        temporal = name.replace('.norm1.', '.temporal_norm1.').replace('.attn.', '.temporal_attn.')
        source = name.split('.', 2)[2]
        _seed(weights, temporal, tensors[name].clone(), f'copy of {source}')
        if name.endswith('.attn.proj.weight'):
            fc = name.replace('.attn.proj.weight', '.temporal_fc')
            _seed(weights, f'{fc}.weight', torch.zeros_like(tensors[name]), 'zero')
            _seed(weights, f'{fc}.bias', tensors[name].new_zeros(len(tensors[name])), 'zero')


def resize_grid(weights: Weights, grid: tuple[int, int], mode: str = 'grid') -> None:
    """Resize the position embeddings to another grid of patches.

    Raises:
        CheckpointError: Nothing says which grid they are for now.
    """
    if grid == weights.grid or 'pos_embed' not in weights.tensors:
        return
    if weights.grid is None:
        refuse_grid(weights)
    old = weights.grid
    weights.tensors['pos_embed'] = resize_positions(weights.tensors['pos_embed'], old, grid, mode)
    how = 'bicubic on the grid' if mode == 'grid' else mode
    note = f'{old[0]} x {old[1]} to {grid[0]} x {grid[1]} patches, {how}'
    weights.load_report.add('resized', 'pos_embed', 'pos_embed', note)
    weights.grid = grid


def _rename(state_dict: dict[str, Tensor], metadata: dict[str, Any]) -> Weights:
    tidy = dict(unstack_blocks(_without_module(state_dict)))
    state_dict.clear()
    state_dict = tidy
    found = detect(state_dict)
    if found is None:
        raise CheckpointError(
            f'no known format explains these {len(state_dict)} keys ({some(state_dict, 4)}); '
            f'readable are {", ".join(form.title for form in FORMATS.values())}'
        )
    form, prefix = found
    load_report = LoadReport(source=form.title, target='mmtimesformer')
    names = form.names(prefix, depth_of(state_dict))
    parts: dict[str, dict[int, tuple[str, Tensor]]] = {}
    for key in list(state_dict):
        weight = state_dict.pop(key)
        reason = form.reason_to_drop(key)
        if key in names:
            ours, place = names[key]
            if not isinstance(weight, Tensor):
                raise CheckpointError(
                    f'{key} is a {type(weight).__name__}, not a tensor', load_report
                )
            _check_content(key, weight, load_report)
            weight = _orient(form, ours, key, weight)
            if weight.ndim != DIMENSIONS.get(ours, weight.ndim):
                raise CheckpointError(
                    f'{key} has shape {tuple(weight.shape)}, and {ours} has {DIMENSIONS[ours]} '
                    'dimensions; the checkpoint is damaged or was changed',
                    load_report,
                )
            parts.setdefault(ours, {})[place] = key, weight
        elif reason is not None:
            load_report.add('dropped', key, note=reason)
        else:
            load_report.add('unknown', key)
    tensors: dict[str, Tensor] = {}
    num_heads = metadata.get('num_heads')
    joined = {ours: len(_parts(form, ours)) for ours in parts}
    for ours in list(parts):
        pieces = parts.pop(ours)
        if len(pieces) < joined[ours]:
            for place, (key, _) in pieces.items():
                load_report.add(
                    'dropped', key, note=f'part {place + 1} of {joined[ours]}, not whole'
                )
            continue
        for place in sorted(pieces):
            load_report.add('renamed', pieces[place][0], ours)
        ordered = [pieces[place][1] for place in sorted(pieces)]
        tensors[ours] = ordered[0] if len(ordered) == 1 else torch.cat(ordered)
    return Weights(tensors, form, '', (0, 0), num_heads, load_report, metadata)


def _check_content(key: str, weight: Tensor, load_report: LoadReport) -> None:
    """See that a tensor can be a weight at all; a model would cast whole numbers in silence."""
    what = None
    if not weight.is_floating_point():
        what = f'numbers of {weight.dtype}, and weights are of a float type'
    elif weight.device.type == 'meta':
        what = 'a shape and no content'
    elif weight.ndim == 0 or 0 in weight.shape:
        what = f'shape {tuple(weight.shape)}, and a weight has numbers along each dimension'
    if what is not None:
        raise CheckpointError(
            f'{key} has {what}; the checkpoint is damaged, quantised or was changed, so save the '
            'weights of the model again',
            load_report,
        )


def _parts(form: Format, ours: str) -> tuple[str, ...]:
    row = next((theirs for pattern, theirs in form.rows.items() if _row_of(ours) == pattern), ours)
    return (row,) if isinstance(row, str) else row


def _row_of(ours: str) -> str:
    """The row of our table that a name belongs to."""
    parts = ours.split('.')
    if parts[0] == 'blocks':
        parts[1] = '{i}'
    if parts[-1] in ('weight', 'bias'):
        parts[-1] = '{p}'
    return '.'.join(parts)


def _orient(form: Format, ours: str, key: str, weight: Tensor) -> Tensor:
    try:
        return form.orient(ours, weight)
    except Exception as error:
        raise CheckpointError(
            f'{key} has shape {tuple(weight.shape)}, which {form.title} does not use for {ours}'
        ) from error


def _without_module(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off the ``module.`` that a parallel wrapper puts before every name."""
    if state_dict and all(key.startswith('module.') for key in state_dict):
        return {key.removeprefix('module.'): weight for key, weight in state_dict.items()}
    return state_dict


def _refuse_other_attention(weights: Weights, has: str, wanted: str) -> None:
    names = set(weights.tensors)
    needed = set(expected_names(wanted, weights.depth, weights.has_qkv_bias))
    dropped = sorted(_row_of(name) for name in names - needed if not name.startswith('head.'))
    seeded = sorted(_row_of(name) for name in needed - names if 'tempor' in name or 'time' in name)
    steps = []
    if dropped:
        steps.append(f'drop {some(list(dict.fromkeys(dropped)))}')
    if seeded:
        steps.append(f'seed {some(list(dict.fromkeys(seeded)))}')
    raise CheckpointError(
        f'the checkpoint is {has}, but {wanted} is wanted; this would {" and ".join(steps)}. '
        f'Set attention_type to {has}, or allow exactly that with change_attention '
        '(--change-attention)',
        weights.load_report,
    )


def _drop_time(weights: Weights, wanted: str) -> None:
    names = list(weights.tensors)
    if wanted != 'divided_space_time':
        temporal = [name for name in names if '.temporal_' in name]
        weights.drop(temporal, f'{wanted} has no temporal attention')
    if wanted == 'space_only':
        weights.drop(['time_embed'], 'space_only does not know the time')


def _why_no_head(weights: Weights, is_image: bool) -> str:
    classes = len(weights.tensors['head.weight'])
    kind = 'images' if is_image else 'videos'
    return f'classifier of {kind}, {classes} classes' + (', not asked for' if not is_image else '')


def _seed(weights: Weights, name: str, tensor: Tensor, note: str) -> None:
    weights.tensors[name] = tensor
    weights.load_report.add('seeded', name, name, note)


def _seed_time_embed(weights: Weights, num_frames: int) -> None:
    like = weights.tensors.get('pos_embed', weights.tensors.get('cls_token'))
    if like is not None:
        zeros = like.new_zeros(1, num_frames, like.shape[-1])
        _seed(weights, 'time_embed', zeros, f'zero, {num_frames} frames')


def _with_qkv_bias(weights: Weights) -> dict[str, Tensor]:
    """MMAction2's attention always has a bias; none is the same as zero."""
    for name in [name for name in weights.tensors if name.endswith('qkv.weight')]:
        bias = name.removesuffix('weight') + 'bias'
        if bias not in weights.tensors:
            weight = weights.tensors[name]
            _seed(weights, bias, weight.new_zeros(len(weight)), 'zero, the same as no bias')
    return dict(weights.tensors)


def _note_missing(weights: Weights) -> None:
    has_head = any(name.startswith('head.') for name in weights.tensors)
    whole = expected_names(weights.attention_type, weights.depth, weights.has_qkv_bias, has_head)
    for name in whole:
        if name not in weights.tensors:
            weights.load_report.add('missing', name)


def _check_shapes(weights: Weights) -> None:
    """See that the weights fit each other; a matrix on its side would show up much later."""
    tensors, load_report = weights.tensors, weights.load_report
    if not {'cls_token', 'patch_embed.proj.weight', 'blocks.0.mlp.fc1.weight'} <= set(tensors):
        return  # missing, which is said elsewhere
    d, m = tensors['cls_token'].shape[-1], len(tensors['blocks.0.mlp.fc1.weight'])
    shapes: dict[str, tuple[int, ...]] = {
        'cls_token': (1, 1, d),
        'qkv.weight': (3 * d, d),
        'qkv.bias': (3 * d,),
        'proj.bias': (d,),
        'attn.proj.weight': (d, d),
        'temporal_fc.weight': (d, d),
        'temporal_fc.bias': (d,),
        'fc1.weight': (m, d),
        'fc1.bias': (m,),
        'fc2.weight': (d, m),
        'fc2.bias': (d,),
    }
    for name, tensor in tensors.items():
        shape = next((shape for end, shape in shapes.items() if name.endswith(end)), None)
        if shape is None and 'norm' in name:
            shape = (d,)
        elif shape is None and name.startswith(('pos_embed', 'time_embed', 'head.weight')):
            shape = (*tensor.shape[:-1], d)
        if shape is not None and tuple(tensor.shape) != shape:
            raise CheckpointError(
                f'{name} has shape {tuple(tensor.shape)}, but beside the other weights of this '
                f'checkpoint it must be {shape}; the checkpoint is damaged or was changed',
                load_report,
            )


def _check_image_vit(weights: Weights) -> None:
    """Refuse the one ViT with another attention, and note another epsilon than the usual one."""
    fc1 = weights.tensors.get('blocks.0.mlp.fc1.weight')
    if fc1 is None or fc1.ndim != 2:
        return
    hidden, width = fc1.shape
    if (width, hidden, weights.depth) == (768, 3 * 768, 8):
        raise CheckpointError(
            'the checkpoint is ViT_small_patch16_224 of 8 blocks of width 768, whose 8 heads scale '
            'their scores by 768**-0.5; no attention here does, and its numbers would be wrong; '
            'start from another ViT, such as ViT_base_patch16_224',
            weights.load_report,
        )
    if weights.source.name == 'paddle_vit' and width == HUGE_WIDTH:
        weights.metadata.setdefault('norm_eps', 1e-5)  # of PaddleClas' ViT-H; of the others 1e-6


def _resize_times(weights: Weights, num_frames: int, mode: str) -> None:
    time_embed = weights.tensors.get('time_embed')
    if time_embed is None or time_embed.shape[1] == num_frames:
        return
    weights.tensors['time_embed'] = resize_times(time_embed, num_frames, mode)
    note = f'{time_embed.shape[1]} to {num_frames} frames, '
    note += 'linear' if mode == 'grid' else mode
    weights.load_report.add('resized', 'time_embed', 'time_embed', note)


def _grid_of(
    weights: Weights,
    given: Size | None,
    stored: Any,
    wanted: tuple[int, int] | None,
    model_grid: tuple[int, int] | None,
) -> tuple[int, int] | None:
    """Find the rows and columns that ``pos_embed`` is for.

    An option or metadata decides. Without them it is a square, or, where the number of patches is
    no square, the grid that is wanted. Where both fit, the model's own grid is taken for a file
    that names its weights like ours, so that a bare state dict loads into its own model unchanged.

    Args:
        weights: The weights under our names.
        given: Pixels, by an option.
        stored: Pixels, by the metadata of the checkpoint.
        wanted: Rows and columns that are wanted in the end.
        model_grid: The same where a model wants them.

    Returns:
        Rows and columns in patches; None where nothing fits.

    Raises:
        CheckpointError: Two sources differ, or one does not fit the number of patches.
    """
    pos_embed, proj = (weights.tensors.get(x) for x in ('pos_embed', 'patch_embed.proj.weight'))
    if pos_embed is None or proj is None:
        return 0, 0
    patches, patch_size = pos_embed.shape[1] - 1, proj.shape[-1]
    by_option, by_file = (_grid_in(size, patch_size) for size in (given, stored))
    fits_file = by_file is not None and math.prod(by_file) == patches
    if by_option is not None:
        if math.prod(by_option) != patches:
            refuse_grid(weights, given)
        if fits_file and by_option != by_file:
            raise CheckpointError(
                f'source_size={_pixels(by_option, patch_size)} differs from img_size='
                f'{_pixels(by_file, patch_size)} in the metadata of the checkpoint; leave '
                'source_size (--source-size) out',
                weights.load_report,
            )
        return by_option
    if by_file is not None:
        if not fits_file:
            refuse_grid(weights, stored)
        return by_file
    side = math.isqrt(patches)
    square = (side, side) if is_square(patches) else None
    if wanted is None or math.prod(wanted) != patches or wanted == square:
        return square
    if square is None:
        return wanted
    if _is_always_square(weights):
        return square
    both = (
        f'pos_embed has {patches} patches, and nothing in the checkpoint says whether they are '
        f'{square[0]} x {square[1]} or {wanted[0]} x {wanted[1]}'
    )
    if wanted != model_grid or not weights.named_like_ours:
        raise CheckpointError(
            f'{both}; give the height and width that the checkpoint was made for as source_size '
            '(--source-size)',
            weights.load_report,
        )
    weights.load_report.warnings.append(
        f"{both}; taken as {wanted[0]} x {wanted[1]}, the model's own grid; if that is wrong, "
        f'convert the checkpoint with --source-size {side * patch_size} first'
    )
    return wanted


def refuse_grid(weights: Weights, size: Any = None) -> NoReturn:
    """Raise the error of a number of patches that does not fit a size, or is not a square.

    Raises:
        CheckpointError: Always.
    """
    patches = weights.tensors['pos_embed'].shape[1] - 1
    expected = 'a square grid'
    if size is not None:
        height, width = _pair(size)
        expected = f'a size of {height} x {width} pixels'
    raise CheckpointError(
        f'pos_embed has {patches} patches of {weights.patch_size} pixels, which is not {expected}; '
        'give the height and width that the checkpoint was made for as source_size (--source-size)',
        weights.load_report,
    )


def _grid_in(size: Any, patch_size: int) -> tuple[int, int] | None:
    if size is None:
        return None
    height, width = _pair(size)
    return height // patch_size, width // patch_size


def _pixels(grid: tuple[int, int] | None, patch_size: int) -> str:
    return ' x '.join(str(n * patch_size) for n in grid or ())


def _is_named_like_ours(weights: Weights) -> bool:
    """Whether a file may be the state dict of one of our models: a backbone has no ``head``."""
    if weights.source.name == 'mmtimesformer':
        return True
    return weights.source.name in ('official', 'timm_vit') and 'head.weight' not in weights.tensors


def _is_always_square(weights: Weights) -> bool:
    """Whether the system of the file has square frames only, or all its published models have."""
    return not weights.source.name.startswith('mmaction2') and not weights.named_like_ours


def _pair(size: Size) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name}={value!r} is not known; give one of {", ".join(choices)}')


def _check_patches(height: int, width: int, patch_size: int) -> None:
    if height % patch_size or width % patch_size or min(height, width) < patch_size:
        raise ValueError(
            f'{height} x {width} pixels cannot be cut into whole patches of {patch_size} pixels; '
            f'set img_size (--img-size) to multiples of {patch_size}'
        )
