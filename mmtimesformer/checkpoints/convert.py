"""Convert a state dict between formats: detect the format, rename the keys, adapt, write names.

:func:`to_canonical` reads any format, :func:`to_format` writes the names of another one. Each step
adds to the :class:`~mmtimesformer.checkpoints.load_report.LoadReport`.
"""

import math
import re
from collections.abc import Collection, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NoReturn

import torch
from torch import Tensor

from mmtimesformer.checkpoints.key_maps import (
    CANONICAL_ROWS,
    FORMATS,
    TEMPORAL_ROWS,
    Format,
    StateDict,
    depth_of,
    detect,
    is_square,
    unstack_blocks,
)
from mmtimesformer.checkpoints.load_report import Action, CheckpointError, LoadReport, some
from mmtimesformer.checkpoints.metadata import ModelMetadata, Preprocessing, Size, complete_metadata
from mmtimesformer.fileio.safe_pickle import shown
from mmtimesformer.resize import resize_positions, resize_times

WRITABLE = ('mmtimesformer', 'official', 'huggingface', 'mmaction2')
ATTENTION_TYPES = ('divided_space_time', 'joint_space_time', 'space_only')
Grid = tuple[int, int]  # rows and columns of patches
DIMENSIONS = {'cls_token': 3, 'pos_embed': 3, 'time_embed': 3, 'patch_embed.proj.weight': 4}
HUGE_WIDTH = 1280  # of ViT-H


@dataclass(frozen=True)
class AdaptOptions:
    """What weights become.

    Attributes:
        attention_type: Of the model; by default the checkpoint's own, or divided for an image ViT.
        num_frames: Length of ``time_embed``; by default as it is, or 8 where there is none.
        img_size: Pixels that ``pos_embed`` shall be for, one number or ``(H, W)``; by default as
            it is.
        source_size: Pixels that ``pos_embed`` is for now, where the grid is not square.
        resize: ``'grid'``, or ``'legacy-1d-nearest'`` for the official way.
        change_attention: Let a checkpoint of one attention type become another: drop what the
            other has no place for, seed what it lacks.
        keep_head: Keep the classifier; by default that of videos is kept, of images dropped.
        allow_missing: Prefixes of names that may stay as the model initialized them.
        model_grid: The grid of the model that the weights are for.
        unknown_grid: Accept a checkpoint whose grid is unknown, as long as nothing is resized.
    """

    attention_type: str | None = None
    num_frames: int | None = None
    img_size: Size | None = None
    source_size: Size | None = None
    resize: str = 'grid'
    change_attention: bool = False
    keep_head: bool | None = None
    allow_missing: tuple[str, ...] = ()
    model_grid: Grid | None = None
    unknown_grid: bool = False


@dataclass
class Weights:
    """Weights under our names; the classifier is ``head.weight`` and ``head.bias``.

    Attributes:
        tensors: The weights.
        source: The format that they came in.
        load_report: What happened to each key.
        metadata: As the file gives it.
        attention_type: Of the model that they are for now.
        grid: Of ``pos_embed``; None where it is unknown.
        named_like_ours: Whether the file may be the bare state dict of one of our models.
    """

    tensors: dict[str, Tensor]
    source: Format
    load_report: LoadReport
    metadata: ModelMetadata
    attention_type: str = ''
    grid: Grid | None = (0, 0)
    named_like_ours: bool = False

    @property
    def depth(self) -> int:
        return depth_of(self.tensors)

    @property
    def patch_size(self) -> int:
        return self.tensors['patch_embed.proj.weight'].shape[-1]

    @property
    def img_size(self) -> tuple[int, int] | None:
        """Height and width, in pixels; None where they are unknown."""
        if self.grid is None:
            return None
        return self.grid[0] * self.patch_size, self.grid[1] * self.patch_size

    def known_size(self) -> tuple[int, int]:
        """Return the height and width, in pixels; raise ``CheckpointError`` if they are unknown."""
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

    @property
    def origin(self) -> Format:
        """The format before all conversions, of which the metadata keep the name."""
        return FORMATS.get(self.metadata.source or '', self.source)

    @property
    def is_image(self) -> bool:
        """Whether these are the weights of an image ViT, not converted yet."""
        return not self.origin.is_video and self.metadata.attention_type is None

    def note_clip(self, overwrite: bool = False) -> None:
        """Note in the metadata the frames and size that the embeddings are for.

        Args:
            overwrite: Also where the source gives others, because they were resized on purpose.
        """
        known = self.grid is not None and min(self.grid) > 0
        clip = Preprocessing(num_frames=self.num_frames, size=self.img_size if known else None)
        stored = self.metadata.preprocessing
        self.metadata.preprocessing = stored.updated(clip) if overwrite else clip.updated(stored)

    def drop(self, names: Iterable[str], why: str) -> None:
        """Drop weights, and report why."""
        for name in names:
            if self.tensors.pop(name, None) is not None:
                self.load_report.drop(name, why)

    def add(self, action: Action, name: str, tensor: Tensor, note: str) -> None:
        """Set a weight, and report how."""
        self.tensors[name] = tensor
        self.load_report.add(action, name, name, note)

    def describe(self) -> ModelMetadata:
        """Return all that is known of these weights, for the meta of a checkpoint."""
        head = self.tensors.get('head.weight')
        classes = None if head is None else len(head)
        metadata = complete_metadata(self.metadata, self.source.name, classes, self.has_qkv_bias)
        return replace(
            metadata,
            source=metadata.source or self.source.name,
            attention_type=self.attention_type,
            img_size=self.img_size,
            num_frames=self.num_frames or metadata.num_frames,
            patch_size=self.patch_size,
            embed_dims=self.tensors['cls_token'].shape[-1],
            num_layers=self.depth,
            qkv_bias=self.has_qkv_bias,
            num_classes=classes,
        )


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
    """Convert a state dict of any readable format into one of four.

    Args:
        state_dict: Names and tensors, in any format of :mod:`~mmtimesformer.checkpoints.key_maps`.
        to: ``'mmtimesformer'``, ``'official'``, ``'huggingface'`` or ``'mmaction2'``.
        attention_type: See :class:`AdaptOptions`, as for all that follow.
        num_frames: Length of ``time_embed``.
        img_size: Pixels that ``pos_embed`` shall be for.
        source_size: Pixels that ``pos_embed`` is for now.
        resize: ``'grid'`` or ``'legacy-1d-nearest'``.
        change_attention: Let one attention type become another.
        keep_head: Keep the classifier.

    Raises:
        CheckpointError: The format is not recognised; a key is missing or unknown; attention
            types differ and ``change_attention`` is not set.

    Example:
        >>> vit, load_report = convert_state_dict(image_vit_state_dict, num_frames=16)
        >>> recognizer.load_state_dict(vit)
        >>> print(load_report.table())
    """
    options = AdaptOptions(
        attention_type, num_frames, img_size, source_size, resize, change_attention, keep_head
    )
    weights = to_canonical(dict(state_dict), options)
    weights.load_report.check()
    return to_format(weights, to), weights.load_report


def to_canonical(
    state_dict: dict[str, Tensor],
    options: AdaptOptions | None = None,
    metadata: ModelMetadata | None = None,
) -> Weights:
    """Bring the weights of any readable format under our names, adapted to ``options``.

    Missing and unknown keys are in the load report of the result, not yet an error. The state dict
    is emptied on the way, so that large weights are held once.
    """
    unstacked = dict(unstack_blocks(_without_module(state_dict)))
    state_dict.clear()
    found = detect(unstacked)
    if found is None:
        raise CheckpointError(
            f'no known format explains these {len(unstacked)} keys ({some(unstacked, 4)}); '
            f'readable are {", ".join(form.title for form in FORMATS.values())}'
        )
    weights = _rename(unstacked, *found)
    weights.metadata = deepcopy(metadata or ModelMetadata())
    _adapt(weights, options or AdaptOptions())
    return weights


def _without_module(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the ``module.`` that a parallel wrapper puts before every name."""
    if state_dict and all(key.startswith('module.') for key in state_dict):
        return {key.removeprefix('module.'): weight for key, weight in state_dict.items()}
    return state_dict


# -- Rename ----------------------------------------------------------------------------------------


def _rename(state_dict: dict[str, Tensor], form: Format, prefix: str) -> Weights:
    """Rename every key to ours, and join what the format keeps in parts."""
    load_report = LoadReport(source=form.title, target='mmtimesformer')
    names = form.names(prefix, depth_of(state_dict))
    parts: dict[str, dict[int, tuple[str, Tensor]]] = {}
    for key in list(state_dict):
        weight = state_dict.pop(key)
        reason = form.reason_to_drop(key)
        if key in names:
            ours, place = names[key]
            parts.setdefault(ours, {})[place] = key, _checked(form, ours, key, weight, load_report)
        elif reason is not None:
            load_report.add('dropped', key, note=reason)
        else:
            load_report.add('unknown', key)
    tensors: dict[str, Tensor] = {}
    rows = {ours: form.rows.get(_row_of(ours), ours) for ours in parts}
    needed = {ours: 1 if isinstance(row, str) else len(row) for ours, row in rows.items()}
    for ours in list(parts):
        pieces = dict(sorted(parts.pop(ours).items()))
        if len(pieces) < needed[ours]:
            for place, (key, _) in pieces.items():
                note = f'part {place + 1} of {needed[ours]}, others are missing'
                load_report.add('dropped', key, note=note)
            continue
        for key, _ in pieces.values():
            load_report.add('renamed', key, ours)
        ordered = [weight for _, weight in pieces.values()]
        tensors[ours] = ordered[0] if len(ordered) == 1 else torch.cat(ordered)
    like_ours = form.name == 'mmtimesformer' or (  # a backbone has no `head`
        form.name in ('official', 'timm_vit') and 'head.weight' not in tensors
    )
    return Weights(tensors, form, load_report, ModelMetadata(), named_like_ours=like_ours)


def _checked(form: Format, ours: str, key: str, weight: Tensor, load_report: LoadReport) -> Tensor:
    """Return a tensor in torch's layout, if it can be this weight at all."""
    if not isinstance(weight, Tensor):
        raise CheckpointError(f'{key} is a {type(weight).__name__}, not a tensor', load_report)
    _check_content(key, weight, load_report)
    try:
        weight = form.orient(ours, weight)
    except Exception as error:
        raise CheckpointError(
            f'{key} has shape {tuple(weight.shape)}, which {form.title} does not use for {ours}'
        ) from error
    if weight.ndim != DIMENSIONS.get(ours, weight.ndim):
        raise CheckpointError(
            f'{key} has shape {tuple(weight.shape)}, and {ours} has {DIMENSIONS[ours]} '
            'dimensions; the checkpoint is damaged or was changed',
            load_report,
        )
    return weight


def _check_content(key: str, weight: Tensor, load_report: LoadReport) -> None:
    """Refuse what cannot be a weight; a model would cast whole numbers without an error."""
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


def _row_of(ours: str) -> str:
    """Return the row of our table that a name belongs to."""
    row = re.sub(r'^blocks\.\d+', 'blocks.{i}', ours)
    return re.sub(r'\.(weight|bias)$', '.{p}', row)


# -- Adapt -----------------------------------------------------------------------------------------


def _adapt(weights: Weights, options: AdaptOptions) -> None:
    """Change attention type, classifier, frames and size to what the options ask for."""
    is_image, num_frames = weights.is_image, options.num_frames
    has = attention_type_of(weights.tensors)
    stated = weights.metadata.attention_type
    if stated is not None and stated != has:
        raise CheckpointError(
            'the metadata of the checkpoint (config.json of a Hugging Face folder) has '
            f'attention_type={shown(stated)}, and its weights are those of {has}: the files do not '
            'belong together, or the value was changed; correct it',
            weights.load_report,
        )
    wanted = options.attention_type or ('divided_space_time' if is_image else has)
    _check_choice('attention_type', wanted, ATTENTION_TYPES)
    if has != wanted and not is_image and not options.change_attention:
        _refuse_other_attention(weights, has, wanted)
    keep_head = not is_image if options.keep_head is None else options.keep_head
    if not keep_head and 'head.weight' in weights.tensors:
        kind, why = ('images', '') if is_image else ('videos', ', not asked for')
        classes = len(weights.tensors['head.weight'])
        weights.drop(('head.weight', 'head.bias'), f'classifier of {kind}, {classes} classes{why}')
    wanted_grid = _set_grid(weights, options)
    if weights.origin.is_video:
        weights.note_clip()
    else:
        _check_image_vit(weights)
    _change_attention(weights, has, wanted, num_frames or weights.metadata.num_frames or 8)
    _report_missing(weights)
    _check_shapes(weights)
    if num_frames is not None:
        weights.metadata.num_frames = num_frames
        _resize_times(weights, num_frames, options.resize)
    if wanted_grid is not None:
        resize_grid(weights, wanted_grid, options.resize)


def attention_type_of(names: Collection[str]) -> str:
    """Return the attention type of a model with these names, which are ours."""
    if any('.temporal_' in name for name in names):
        return 'divided_space_time'
    return 'joint_space_time' if 'time_embed' in names else 'space_only'


def expected_names(
    attention_type: str, depth: int, qkv_bias: bool = True, head: bool = False
) -> list[str]:
    """Return our names of a complete model, in the order of the forward pass."""
    rows = [
        row
        for row in CANONICAL_ROWS
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


def _refuse_other_attention(weights: Weights, has: str, wanted: str) -> NoReturn:
    names = set(weights.tensors)
    needed = set(expected_names(wanted, weights.depth, weights.has_qkv_bias))
    dropped = sorted(_row_of(name) for name in names - needed if not name.startswith('head.'))
    seeded = sorted(_row_of(name) for name in needed - names if 'tempor' in name or 'time' in name)
    steps = [
        f'{verb} {some(list(dict.fromkeys(rows)))}'
        for verb, rows in (('drop', dropped), ('seed', seeded))
        if rows
    ]
    raise CheckpointError(
        f'the checkpoint is {has}, but {wanted} is wanted; this would {" and ".join(steps)}. '
        f'Set attention_type to {has}, or allow exactly that with change_attention '
        '(--change-attention)',
        weights.load_report,
    )


def _change_attention(weights: Weights, has: str, wanted: str, num_frames: int) -> None:
    weights.attention_type = wanted
    if has != wanted:
        if wanted != 'divided_space_time':
            temporal = [name for name in weights.tensors if '.temporal_' in name]
            weights.drop(temporal, f'{wanted} has no temporal attention')
        if wanted == 'space_only':
            weights.drop(['time_embed'], 'space_only has no time embedding')
        if wanted == 'divided_space_time':
            seed_temporal_attention(weights)
    like = weights.tensors.get('pos_embed', weights.tensors.get('cls_token'))
    if wanted != 'space_only' and has == 'space_only' and like is not None:
        zeros = like.new_zeros(1, num_frames, like.shape[-1])
        weights.add('seeded', 'time_embed', zeros, f'zero, {num_frames} frames')


def seed_temporal_attention(weights: Weights) -> None:
    """Seed temporal attention and norms from the spatial ones, and ``temporal_fc`` with zero.

    So time adds nothing at first: the output is that of the image ViT.

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
        weights.add('seeded', temporal, tensors[name].clone(), f'copy of {source}')
        if name.endswith('.attn.proj.weight'):
            fc = name.replace('.attn.proj.weight', '.temporal_fc')
            weights.add('seeded', f'{fc}.weight', torch.zeros_like(tensors[name]), 'zero')
            weights.add('seeded', f'{fc}.bias', tensors[name].new_zeros(len(tensors[name])), 'zero')


def add_qkv_bias(weights: Weights) -> None:
    """Add a bias of zero to queries, keys and values without one, which is the same."""
    for name in [name for name in weights.tensors if name.endswith('qkv.weight')]:
        bias = name.removesuffix('weight') + 'bias'
        if bias not in weights.tensors:
            zeros = weights.tensors[name].new_zeros(len(weights.tensors[name]))
            weights.add('seeded', bias, zeros, 'zero, the same as no bias')


def adapt_channels(weights: Weights, channels: int) -> None:
    """Adapt the patch embedding of an RGB model to another number of input channels.

    The rule is that of timm and the official code. One channel: the sum over RGB, so a grey frame
    gives what it gives as RGB of three equal channels. ``n`` channels: the weights of RGB repeated
    in turn and multiplied by 3 / n, so that the output keeps its size. A checkpoint of other than
    3 channels stays as it is.

    Shape:
        - weight: ``d 3 patch patch`` -> ``d channels patch patch``
    """
    name = 'patch_embed.proj.weight'
    weight = weights.tensors.get(name)
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or channels == 3:
        return
    if channels == 1:
        adapted, note = weight.sum(1, keepdim=True), 'sum over RGB, for 1 channel'
    else:
        adapted = weight[:, torch.arange(channels) % 3] * (3 / channels)
        note = f'RGB repeated and multiplied by 3/{channels}, for {channels} channels'
    weights.add('adapted', name, adapted, note)
    weights.load_report.warnings.append(
        f'{name} is of 3 channels and the model has in_channels={channels}: {note}. Train before '
        'you test'
    )


def _report_missing(weights: Weights) -> None:
    head = any(name.startswith('head.') for name in weights.tensors)
    for name in expected_names(weights.attention_type, weights.depth, weights.has_qkv_bias, head):
        if name not in weights.tensors:
            weights.load_report.add('missing', name)


def _check_shapes(weights: Weights) -> None:
    """Check that the shapes agree; a transposed matrix would be found much later."""
    tensors, load_report = weights.tensors, weights.load_report
    if not {'cls_token', 'patch_embed.proj.weight', 'blocks.0.mlp.fc1.weight'} <= set(tensors):
        return  # reported as missing
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
                f'{name} has shape {tuple(tensor.shape)}, but with the other weights of this '
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
        # PaddleClas' ViT-H has 1e-5, the others 1e-6.
        weights.metadata.norm_eps = weights.metadata.norm_eps or 1e-5


def _resize_times(weights: Weights, num_frames: int, mode: str) -> None:
    time_embed = weights.tensors.get('time_embed')
    if time_embed is None or time_embed.shape[1] == num_frames:
        return
    how = 'linear' if mode == 'grid' else mode
    note = f'{time_embed.shape[1]} to {num_frames} frames, {how}'
    weights.add('resized', 'time_embed', resize_times(time_embed, num_frames, mode), note)


def resize_grid(weights: Weights, grid: Grid, mode: str = 'grid') -> None:
    """Resize the position embeddings to another grid of patches; refuse an unknown old grid."""
    if grid == weights.grid or 'pos_embed' not in weights.tensors:
        return
    if weights.grid is None:
        refuse_grid(weights)
    old = weights.grid
    resized = resize_positions(weights.tensors['pos_embed'], old, grid, mode)
    how = 'bicubic on the grid' if mode == 'grid' else mode
    note = f'{old[0]} x {old[1]} to {grid[0]} x {grid[1]} patches, {how}'
    weights.add('resized', 'pos_embed', resized, note)
    weights.grid = grid


# The grid of the position embeddings


def _set_grid(weights: Weights, options: AdaptOptions) -> Grid | None:
    """Find the grid that ``pos_embed`` is for; return the one that is wanted."""
    wanted = options.model_grid
    if options.img_size is not None:
        height, width = _pair(options.img_size)
        _check_patches(height, width, weights.patch_size)
        wanted = height // weights.patch_size, width // weights.patch_size
    weights.grid = _grid_of(weights, options, wanted)
    if weights.grid is None and not options.unknown_grid:
        refuse_grid(weights)
    return wanted


def _grid_of(weights: Weights, options: AdaptOptions, wanted: Grid | None) -> Grid | None:
    """Find the rows and columns that ``pos_embed`` is for.

    An option or metadata decides. Without them it is a square, or, where the number of patches is
    no square, the grid that is wanted. Where both fit, the model's own grid is taken for a file
    that names its weights like ours, so that a bare state dict loads into its own model unchanged.

    Returns:
        None where nothing fits.

    Raises:
        CheckpointError: Two sources differ, or one does not fit the number of patches.
    """
    pos_embed, proj = (weights.tensors.get(x) for x in ('pos_embed', 'patch_embed.proj.weight'))
    if pos_embed is None or proj is None:
        return 0, 0
    patches, patch_size = pos_embed.shape[1] - 1, proj.shape[-1]
    given, stored = options.source_size, weights.metadata.img_size
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
    if not weights.source.name.startswith('mmaction2') and not weights.named_like_ours:
        return square  # the system has square frames only, or all its published models have
    both = (
        f'pos_embed has {patches} patches, and nothing in the checkpoint defines whether they are '
        f'{square[0]} x {square[1]} or {wanted[0]} x {wanted[1]}'
    )
    if wanted != options.model_grid or not weights.named_like_ours:
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


def refuse_grid(weights: Weights, size: Size | None = None) -> NoReturn:
    """Raise ``CheckpointError`` for a number of patches that fits no size, or is not a square."""
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


def _grid_in(size: Size | None, patch_size: int) -> Grid | None:
    if size is None:
        return None
    height, width = _pair(size)
    return height // patch_size, width // patch_size


def _pixels(grid: Grid | None, patch_size: int) -> str:
    return ' x '.join(str(n * patch_size) for n in grid or ())


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


# -- Write names -----------------------------------------------------------------------------------


def to_format(weights: Weights, to: str) -> dict[str, Tensor]:
    """Return the tensors under the names of one of the four formats that are written.

    Raises:
        CheckpointError: The format cannot hold these weights.
    """
    _check_choice('to', to, WRITABLE)
    load_report = weights.load_report
    name, prefix = to, None
    if to == 'mmaction2':
        name = 'mmaction2' if weights.attention_type == 'divided_space_time' else 'mmaction2_joint'
        add_qkv_bias(weights)  # its attention always has one
    if to == 'huggingface':
        prefix = 'timesformer.' if 'head.weight' in weights.tensors else ''
        if weights.attention_type == 'space_only':
            load_report.warnings.append(
                "Hugging Face's forward pass for space_only is broken: the file is right, but "
                'its model does not compute what TimeSformer does'
            )
    form = FORMATS[name]
    names = form.written_names(weights.depth, prefix)
    foreign = [ours for ours in weights.tensors if ours not in names]
    if foreign:
        raise CheckpointError(f'{form.title} has no place for {some(foreign)}', load_report)
    load_report.target = form.title
    load_report.rename(names)
    return {names[ours]: tensor for ours, tensor in weights.tensors.items()}
