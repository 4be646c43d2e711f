"""Load a checkpoint into a model: rename, resize and verify every key."""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmtimesformer.checkpoints.convert import (
    AdaptOptions,
    Weights,
    adapt_channels,
    add_qkv_bias,
    attention_type_of,
    to_canonical,
    to_format,
)
from mmtimesformer.checkpoints.download import fetch, model_address
from mmtimesformer.checkpoints.key_maps import FORMATS, detect, unstack_blocks
from mmtimesformer.checkpoints.load_report import CheckpointError, LoadReport, some
from mmtimesformer.checkpoints.metadata import (
    ModelMetadata,
    Size,
    differences,
    find_metadata,
    heads_of,
    metadata_of_config,
)
from mmtimesformer.checkpoints.readers import Contents, from_torch, read_file
from mmtimesformer.fileio.torch_files import MapLocation
from mmtimesformer.non_finite import check_weights, non_finite_weights, some_names

Source = str | os.PathLike[str]
HEADS_OF_MODELS = ('cls_head.fc_cls.', 'head.')


@dataclass
class Adapted:
    """Weights under the names and in the shapes of a model, and how they came to be."""

    state_dict: dict[str, Tensor]
    load_report: LoadReport
    metadata: ModelMetadata

    def complete(self, model: nn.Module) -> dict[str, Tensor]:
        """Return a complete state dict, with the model's own newly initialized weights."""
        return {
            name: self.state_dict.get(name, tensor) for name, tensor in model.state_dict().items()
        }


def read_checkpoint(
    source: Source,
    *,
    attention_type: str | None = None,
    num_frames: int | None = None,
    img_size: Size | None = None,
    source_size: Size | None = None,
    num_heads: int | None = None,
    resize: str = 'grid',
    change_attention: bool = False,
    keep_head: bool | None = None,
    sha256: str | None = None,
    trust: bool = False,
) -> Weights:
    """Read a checkpoint of any readable format, under our names.

    Args:
        source: A path, a folder, ``https://…``, ``hf://owner/name`` or ``timm://name``.
        attention_type: See :class:`~mmtimesformer.checkpoints.convert.AdaptOptions`, as for all
            that follow.
        num_frames: Length of ``time_embed``.
        img_size: Pixels that ``pos_embed`` shall be for.
        source_size: Pixels that ``pos_embed`` is for now.
        num_heads: Attention heads, where the checkpoint does not give them.
        resize: ``'grid'`` or ``'legacy-1d-nearest'``.
        change_attention: Let one attention type become another.
        keep_head: Keep the classifier.
        sha256: Hash that the file must have.
        trust: Let this one file run the code it holds; for files of your own only.

    Raises:
        CheckpointError: A key is missing or unknown.
        ValueError: The file is damaged, refused, or no checkpoint.
    """
    contents = read_file(fetch(source, sha256), trust=trust)
    if not contents.tensors:
        raise ValueError(f'checkpoint {source} holds no weights; give a file that does')
    options = AdaptOptions(
        attention_type, num_frames, img_size, source_size, resize, change_attention, keep_head
    )
    weights = contents_to_canonical(contents, replace(options, unknown_grid=True))
    if weights.grid is None:
        weights.load_report.warnings.append(
            'the height and width that pos_embed is for are unknown, and are not stored; '
            'give them as source_size (--source-size)'
        )
    if num_heads is not None:
        _check_heads(weights, num_heads)
        weights.metadata.num_heads = num_heads
    weights.load_report.check()
    if broken := non_finite_weights(weights.tensors):
        weights.load_report.warnings.append(
            f'{len(broken)} of its {len(weights.tensors)} weights are NaN or infinite '
            f'({some_names(broken)}); no model can use them'
        )
    if num_frames is not None or img_size is not None:
        weights.note_clip(overwrite=True)
    return weights


def load_checkpoint(
    model: nn.Module,
    source: Source,
    *,
    change_attention: bool = False,
    allow_missing: Sequence[str] = (),
    source_size: Size | None = None,
    resize: str = 'grid',
    keep_head: bool | None = None,
    sha256: str | None = None,
    trust: bool = False,
) -> LoadReport:
    """Load a checkpoint of any readable format into a model of ours, and report every key.

    The weights are adapted to the model's attention type, number of frames and size. A classifier
    for another number of classes stays as the model initialized it, which the report lists.

    Args:
        model: A :class:`~mmtimesformer.TimeSformer`, or a recogniser whose ``backbone`` is one.
        source: A path, a folder, ``https://…``, ``hf://owner/name`` or ``timm://name``.
        change_attention: See :class:`~mmtimesformer.checkpoints.convert.AdaptOptions`, as for all
            that follow.
        allow_missing: Prefixes of names that may stay as the model initialized them, such as those
            of a module of your own that no checkpoint has.
        source_size: Pixels that ``pos_embed`` is for in the checkpoint.
        resize: ``'grid'`` or ``'legacy-1d-nearest'``.
        keep_head: Keep the classifier.
        sha256: Hash that the file must have.
        trust: Let this one file run the code it holds; for files of your own only.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.
        NonFiniteError: A weight is NaN or infinite.

    Example:
        >>> report = load_checkpoint(TimeSformer(), 'timm://vit_base_patch16_224.augreg_in21k')
        >>> print(report.table())
    """
    options = AdaptOptions(
        source_size=source_size,
        resize=resize,
        change_attention=change_attention,
        keep_head=keep_head,
        allow_missing=tuple(allow_missing),
    )
    adapted = adapt_contents(read_file(fetch(source, sha256), trust=trust), model, options)
    model.load_state_dict(adapted.complete(model))
    for warning in adapted.load_report.warnings:
        warnings.warn(warning, stacklevel=2)
    return adapted.load_report


def adapt_checkpoint(checkpoint: dict[str, Any], model: nn.Module) -> LoadReport | None:
    """Adapt a checkpoint that MMEngine is about to load to the model, in place.

    Call it where both are there, such as in a hook's ``after_load_checkpoint``: MMEngine loads the
    keys that match, and only logs the others. A model without a backbone of ours is left alone.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.
    """
    if backbone_of(model) is None:
        return None
    adapted = adapt_contents(from_torch(checkpoint), model)
    for key in [key for key, value in checkpoint.items() if isinstance(value, Tensor)]:
        del checkpoint[key]
    checkpoint['state_dict'] = adapted.complete(model)
    meta = checkpoint.get('meta')
    checkpoint['meta'] = {**(meta if isinstance(meta, dict) else {})}
    checkpoint['meta'].setdefault('mmtimesformer', adapted.metadata.to_dict())
    return adapted.load_report


def read_model_checkpoint(source: Source, map_location: MapLocation = 'cpu') -> Any:
    """Read a checkpoint for MMEngine: convert only what it cannot read itself.

    The model is not known yet, so a torch file comes back untouched: a training checkpoint with all
    it holds, MMAction2's own weights, any other model's. What MMEngine cannot use (the official and
    Hugging Face's TimeSformer, safetensors, JAX, Paddle) becomes ``dict(meta=…, state_dict=…)``
    with ``backbone.…`` and ``cls_head.fc_cls.…``. See :func:`adapt_checkpoint` for the next step.
    """
    contents = read_file(fetch(source), map_location=map_location or 'cpu')
    if contents.checkpoint is not None and _is_of_mmengine(contents.checkpoint):
        return contents.checkpoint
    found = detect(dict(unstack_blocks(contents.tensors)))
    if contents.checkpoint is not None and (
        found is None or found[0].name not in ('official', 'huggingface')
    ):
        return contents.checkpoint
    if found is None:
        return {'state_dict': _moved(contents.tensors, map_location)}
    given_type = find_metadata(contents.extras, contents.tensors).attention_type
    is_image = not found[0].is_video and given_type is None  # stays so until its model is known
    options = AdaptOptions(
        attention_type='space_only' if is_image else None, keep_head=not is_image, unknown_grid=True
    )
    weights = contents_to_canonical(contents, options)
    weights.load_report.check()
    metadata = weights.describe()
    if weights.named_like_ours and weights.metadata.img_size is None:
        metadata.img_size = None  # a guess, which the model may correct
    if is_image:
        metadata.attention_type = None
    tensors = _moved(to_format(weights, 'mmtimesformer'), map_location)
    return {'meta': metadata.to_meta(), 'state_dict': tensors}


def _is_of_mmengine(checkpoint: Mapping[str, object]) -> bool:
    """Whether MMEngine's Runner wrote a checkpoint, so that its names are MMAction2's."""
    meta = checkpoint.get('meta')
    return isinstance(meta, dict) and 'mmengine_version' in meta


def config_differences(checkpoint: Mapping[str, object], config: Mapping[str, object]) -> list[str]:
    """List where a checkpoint's preprocessing and a config's differ, with both values.

    Args:
        checkpoint: As MMEngine loads it, with ``meta``.
        config: The config of the run that loads it.
    """
    return differences(find_metadata(checkpoint, {}), metadata_of_config(config))


def _check_heads(weights: Weights, num_heads: int) -> None:
    """Compare a number of heads that was given with the width and with the metadata."""
    cls_token = weights.tensors.get('cls_token')
    if cls_token is None:
        return
    width, stored = cls_token.shape[-1], weights.metadata.num_heads
    if num_heads < 1 or width % num_heads:
        raise CheckpointError(
            f'num_heads={num_heads} does not divide the width {width} of the checkpoint; give '
            'num_heads (--num-heads) as it was trained',
            weights.load_report,
        )
    if stored and stored != num_heads:
        raise CheckpointError(
            f'num_heads={num_heads} differs from {stored} in the metadata of the checkpoint; leave '
            'num_heads (--num-heads) out',
            weights.load_report,
        )


def contents_to_canonical(contents: Contents, options: AdaptOptions | None = None) -> Weights:
    """Bring the weights of a file under our names; afterwards ``contents`` holds no tensors."""
    metadata = find_metadata(contents.extras, contents.tensors)
    tensors, contents.tensors, contents.checkpoint = contents.tensors, {}, None
    return to_canonical(tensors, options, metadata)


def backbone_arguments(weights: Weights) -> dict[str, Any]:
    """Return the arguments of :class:`~mmtimesformer.TimeSformer` that weights are for.

    Raises:
        CheckpointError: The height and width that ``pos_embed`` is for are not known.
        ValueError: The number of heads is not known.
    """
    metadata = weights.describe()
    hidden, width = weights.tensors['blocks.0.mlp.fc1.weight'].shape
    arguments: dict[str, Any] = {
        'attention_type': weights.attention_type,
        'num_frames': metadata.num_frames or 8,
        'img_size': weights.known_size(),
        'patch_size': weights.patch_size,
        'in_channels': weights.tensors['patch_embed.proj.weight'].shape[1],
        'embed_dims': width,
        'num_layers': weights.depth,
        'num_heads': heads_of(width, metadata.num_heads),
        'mlp_ratio': hidden / width,
        'qkv_bias': weights.has_qkv_bias,
    }
    if metadata.norm_eps is not None:
        arguments['norm_eps'] = metadata.norm_eps
    return arguments


def read_backbone(source: Source, changes: Mapping[str, Any]) -> tuple[dict[str, Any], Weights]:
    """Read the weights of a backbone, and the arguments of the model that they are for.

    Args:
        source: As for :func:`read_checkpoint`, or ``owner/name``.
        changes: Arguments that differ; weights are adapted to those that change their shapes.
    """
    weights = read_checkpoint(
        model_address(source),
        attention_type=changes.get('attention_type'),
        num_frames=changes.get('num_frames'),
        img_size=changes.get('img_size'),
        keep_head=False,
    )
    return {**backbone_arguments(weights), **changes}, weights


def backbone_of(model: nn.Module) -> tuple[str, Any] | None:
    """Find our backbone in a model; return the prefix of its names, and the backbone."""
    for name, module in model.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        if {'cls_token', 'pos_embed'} <= set(parameters) and hasattr(module, 'grid'):
            return (f'{name}.' if name else ''), module
    return None


def adapt_contents(
    contents: Contents, model: nn.Module, options: AdaptOptions | None = None
) -> Adapted:
    """Adapt the weights of a file to a model: names, attention type, sizes, classifier.

    Attention type, frames and grid are the model's, whatever the options.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.
        NonFiniteError: A weight is NaN or infinite.
    """
    options = options or AdaptOptions()
    prefix, backbone = _need_backbone(model)
    wanted = dict(model.state_dict())
    own = {name.removeprefix(prefix) for name in wanted if name.startswith(prefix)}
    is_own = _has_own_modules(own) or _has_own_head(wanted)
    if is_own and set(contents.tensors) >= {prefix + name for name in own}:
        adapted = _adapt_same_model(contents, wanted)
        check_weights(adapted.state_dict, _parameter_names(model))
        return adapted
    time_embed = wanted.get(f'{prefix}time_embed')
    of_model = replace(
        options,
        attention_type=attention_type_of(own),
        num_frames=None if time_embed is None else time_embed.shape[1],
        model_grid=tuple(backbone.grid),
    )
    weights = contents_to_canonical(contents, of_model)
    return match_weights(weights, model, options.allow_missing)


def match_weights(
    weights: Weights, model: nn.Module, allow_missing: tuple[str, ...] = ()
) -> Adapted:
    """Give weights that have the sizes of a model the model's names.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.
        NonFiniteError: A weight is NaN or infinite.
    """
    prefix, backbone = _need_backbone(model)
    wanted = model.state_dict()
    weights.load_report.target = type(model).__name__
    _compare_hyperparameters(weights, backbone)
    adapt_channels(weights, wanted[f'{prefix}patch_embed.proj.weight'].shape[1])
    if not weights.has_qkv_bias and any(name.endswith('qkv.bias') for name in wanted):
        add_qkv_bias(weights)
    adapted = _match(weights, wanted, prefix, allow_missing)
    check_weights(adapted.state_dict, _parameter_names(model))
    return adapted


def _need_backbone(model: nn.Module) -> tuple[str, Any]:
    found = backbone_of(model)
    if found is None:
        raise TypeError(
            f'{type(model).__name__} has no TimeSformer of ours inside; build the model with '
            "backbone=dict(type='mmtimesformer.TimeSformer', …)"
        )
    return found


def _parameter_names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def _moved(tensors: dict[str, Tensor], map_location: MapLocation) -> dict[str, Tensor]:
    if not isinstance(map_location, str | torch.device):
        return tensors
    return {name: tensor.to(map_location) for name, tensor in tensors.items()}


def _has_own_modules(names: set[str]) -> bool:
    known = FORMATS['mmtimesformer'].names('', len(names))
    return not all(name in known for name in names)


def _has_own_head(names: Iterable[str]) -> bool:
    return any(
        name.startswith('cls_head.') and not name.startswith(HEADS_OF_MODELS) for name in names
    )


def _adapt_same_model(contents: Contents, wanted: Mapping[str, Tensor]) -> Adapted:
    """Match by name alone, for a model with modules of the user's own."""
    ours = FORMATS['mmtimesformer']
    load_report = LoadReport(source=ours.title, target='the same model')
    state_dict: dict[str, Tensor] = {}
    for name, tensor in contents.tensors.items():
        if (
            name in wanted
            and name.startswith(HEADS_OF_MODELS)
            and tensor.shape != wanted[name].shape
        ):
            load_report.add('dropped', name, note=_other_classes(len(tensor), len(wanted[name])))
            load_report.add(
                'newly initialized', name, note=f'a new classifier of {len(wanted[name])} classes'
            )
        elif name in wanted:
            _check_shape(load_report, name, tensor, wanted[name])
            load_report.add('renamed', name, name)
            state_dict[name] = tensor
        elif ours.reason_to_drop(name) is None:
            load_report.add('unknown', name)
    for name in wanted:
        if name not in contents.tensors:
            load_report.add('missing', name)
    load_report.check()
    return Adapted(state_dict, load_report, find_metadata(contents.extras, {}))


def _compare_hyperparameters(weights: Weights, backbone: Any) -> None:
    """Compare what no shape shows: the number of heads, and the epsilon of the norms."""
    has = weights.metadata.num_heads
    attention = getattr(next(iter(backbone.blocks)), 'attn', None)
    wanted = getattr(attention, 'num_heads', None)
    if has and wanted and has != wanted:
        raise CheckpointError(
            f'the checkpoint has {has} attention heads, the model {wanted}: every shape would fit '
            f'and every number be wrong; set backbone.num_heads to {has}',
            weights.load_report,
        )
    trained, given = weights.metadata.norm_eps, getattr(backbone.norm, 'eps', None)
    if trained and given and trained != given:
        weights.load_report.warnings.append(
            f'norm_eps: the checkpoint was trained with {trained:g}, the model has {given:g}; set '
            f'backbone.norm_eps to {trained:g} for the very same numbers'
        )


def _match(
    weights: Weights, wanted: Mapping[str, Tensor], prefix: str, allow_missing: tuple[str, ...]
) -> Adapted:
    load_report = weights.load_report
    metadata = weights.describe() if load_report.complete else ModelMetadata()
    head = next((head for head in HEADS_OF_MODELS if f'{head}weight' in wanted), None)
    _match_head(weights, wanted, head)
    names = {
        ours: ours.replace('head.', head, 1) if head and ours.startswith('head.') else prefix + ours
        for ours in weights.tensors
    }
    if any(name not in wanted for name in names.values()):
        _refuse_names(weights, wanted, prefix)
    state_dict: dict[str, Tensor] = {}
    for ours, name in names.items():
        _check_shape(load_report, name, weights.tensors[ours], wanted[name])
        state_dict[name] = weights.tensors[ours]
    reported = set(load_report.keys('missing')) | set(load_report.keys('newly initialized'))
    for name in wanted:
        ours = name.removeprefix(prefix)
        if name in state_dict or name in reported or ours in reported:
            continue
        if name.startswith(allow_missing) or ours.startswith(allow_missing):
            load_report.add('newly initialized', name, note='allowed by allow_missing')
        else:
            load_report.add('missing', name)
    load_report.check()
    return Adapted(state_dict, load_report, metadata)


def _match_head(weights: Weights, wanted: Mapping[str, Tensor], head: str | None) -> None:
    has = weights.tensors.get('head.weight')
    needs = wanted[f'{head}weight'] if head else None
    if has is not None and (needs is None or has.shape != needs.shape):
        why = 'the model has no classifier'
        if needs is not None:
            why = _other_classes(len(has), len(needs))
        weights.drop(['head.weight', 'head.bias'], why)
    if needs is not None and 'head.weight' not in weights.tensors:
        for leaf in ('weight', 'bias'):
            if f'{head}{leaf}' in wanted:
                note = f'a new classifier of {len(needs)} classes'
                weights.load_report.add('newly initialized', f'{head}{leaf}', note=note)


def _other_classes(has: int, needs: int) -> str:
    return f'a classifier of {has} classes, the model has {needs}'


def _refuse_names(weights: Weights, wanted: Mapping[str, Tensor], prefix: str) -> None:
    backbone = [name for name in weights.tensors if not name.startswith('head.')]
    foreign = [name for name in backbone if prefix + name not in wanted]
    blocks = [name.removeprefix(prefix) for name in wanted if name.startswith(f'{prefix}blocks.')]
    layers = len({name.split('.')[1] for name in blocks})
    hint = 'set the components of the backbone to those of the checkpoint'
    if weights.depth != layers:
        hint = (
            f'the checkpoint has {weights.depth} blocks, the model {layers}; set '
            f'backbone.num_layers to {weights.depth}'
        )
    elif all(name.endswith('qkv.bias') for name in foreign):
        hint = 'set backbone.qkv_bias to True'
    raise CheckpointError(
        f'the model has no place for {some(foreign)}: {hint}', weights.load_report
    )


def _check_shape(load_report: LoadReport, name: str, has: Tensor, wanted: Tensor) -> None:
    if has.shape == wanted.shape:
        return
    keys = 'backbone.embed_dims'
    if 'patch_embed' in name:
        keys = 'backbone.patch_size, in_channels or embed_dims'
    elif '.mlp.' in name:
        keys = 'backbone.embed_dims or mlp_ratio'
    raise CheckpointError(
        f'{name} has shape {tuple(has.shape)} in the checkpoint and {tuple(wanted.shape)} in the '
        f'model; set {keys} to those of the checkpoint',
        load_report,
    )
