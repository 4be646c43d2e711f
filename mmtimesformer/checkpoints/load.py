"""Into a model: the file says what there is, the model says what is wanted."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmtimesformer.checkpoints.convert import (
    Size,
    Weights,
    attention_type_of,
    to_canonical,
    to_format,
)
from mmtimesformer.checkpoints.download import fetch
from mmtimesformer.checkpoints.key_maps import FORMATS, Format, detect, unstack_blocks
from mmtimesformer.checkpoints.load_report import CheckpointError, LoadReport, some
from mmtimesformer.checkpoints.metadata import differences, find_metadata, metadata_of_config
from mmtimesformer.checkpoints.readers import Contents, from_torch, read_file
from mmtimesformer.non_finite import check_weights, non_finite_weights, some_names

Source = str | os.PathLike[str]
HEADS_OF_MODELS = ('cls_head.fc_cls.', 'head.')


@dataclass
class Adapted:
    """Weights whose names and shapes are a model's, and how they became so."""

    state_dict: dict[str, Tensor]
    load_report: LoadReport
    facts: dict[str, Any]


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
    """Read a checkpoint of any system, from anywhere, under our names.

    Args:
        source: A path, a folder, ``https://…``, ``hf://owner/name`` or ``timm://name``.
        attention_type: What the model will be; the checkpoint's own, or divided for an image ViT.
        num_frames: Length of ``time_embed``.
        img_size: Pixels that ``pos_embed`` shall be for.
        source_size: Pixels that ``pos_embed`` is for now, where the grid is not square.
        num_heads: Attention heads, where the checkpoint does not tell.
        resize: ``'grid'``, or ``'legacy-1d-nearest'``.
        change_attention: Let one attention type become another.
        keep_head: Keep the classifier; that of videos is kept, of images dropped, if not given.
        sha256: Hash that the file must have.
        trust: Let this one file run the code it holds; for files of your own only.

    Raises:
        CheckpointError: Not every key is accounted for.
        ValueError: The file is damaged, refused, or no checkpoint.
    """
    contents = read_file(fetch(source, sha256), trust=trust)
    if not contents.tensors:
        raise ValueError(f'checkpoint {source} holds no weights; give a file that does')
    weights = contents_to_canonical(
        contents,
        attention_type=attention_type,
        num_frames=num_frames,
        img_size=img_size,
        source_size=source_size,
        resize=resize,
        change_attention=change_attention,
        keep_head=keep_head,
        unknown_grid=True,
    )
    if weights.grid is None:
        weights.load_report.warnings.append(
            'nothing says which height and width pos_embed is for, nor will the metadata; '
            'give them as source_size (--source-size)'
        )
    _check_heads(weights, num_heads)
    weights.num_heads = num_heads or weights.num_heads
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
    """Load a checkpoint of any system into a model of ours, and account for every key.

    The model decides what the weights become: attention type, number of frames and size are its
    own. A classifier for another number of classes stays as the model made it, and the account
    says so.

    Args:
        model: A :class:`~mmtimesformer.TimeSformer`, or a recogniser whose ``backbone`` is one.
        source: A path, a folder, ``https://…``, ``hf://owner/name`` or ``timm://name``.
        change_attention: Let one attention type become another: drop what the model has no place
            for, seed what the checkpoint lacks.
        allow_missing: Beginnings of names that may stay as the model made them, such as those of
            a part of your own that no checkpoint has.
        source_size: Pixels that ``pos_embed`` is for in the checkpoint, where its grid is not
            square.
        resize: ``'grid'``, or ``'legacy-1d-nearest'``.
        keep_head: Keep the classifier; that of videos is kept, of images dropped, if not given.
        sha256: Hash that the file must have.
        trust: Let this one file run the code it holds; for files of your own only.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.
        NonFiniteError: A weight is NaN or infinite.

    Example:
        >>> account = load_checkpoint(TimeSformer(), 'timm://vit_base_patch16_224.augreg_in21k')
        >>> print(account.table())
    """
    adapted = adapt_contents(
        read_file(fetch(source, sha256), trust=trust),
        model,
        change_attention=change_attention,
        allow_missing=allow_missing,
        source_size=source_size,
        resize=resize,
        keep_head=keep_head,
    )
    model.load_state_dict(_with_fresh(adapted, model))
    for warning in adapted.load_report.warnings:
        warnings.warn(warning, stacklevel=2)
    return adapted.load_report


def adapt_checkpoint(checkpoint: dict[str, Any], model: nn.Module) -> LoadReport | None:
    """Make a checkpoint that MMEngine is about to load into a model fit it, in place.

    Meant for where MMEngine knows both, such as a hook's ``after_load_checkpoint``: by itself it
    would load what happens to match, and only log the rest. A model without a backbone of ours is
    left alone.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.
    """
    if backbone_of(model) is None:
        return None
    adapted = adapt_contents(from_torch(checkpoint), model)
    for key in [key for key, value in checkpoint.items() if isinstance(value, Tensor)]:
        del checkpoint[key]
    checkpoint['state_dict'] = _with_fresh(adapted, model)
    meta = checkpoint.get('meta')
    checkpoint['meta'] = {**(meta if isinstance(meta, dict) else {})}
    checkpoint['meta'].setdefault('mmtimesformer', adapted.facts)
    return adapted.load_report


def read_model_checkpoint(source: Source, map_location: Any = 'cpu') -> Any:
    """Read a checkpoint for MMEngine: what it could read stays as it is, all else becomes ours.

    At this point nobody knows which model the weights are for, so a torch file comes back
    untouched: a training checkpoint with all it holds, MMAction2's own weights, any other model's.
    Only where MMEngine could make nothing of it (the official and Hugging Face's TimeSformer,
    safetensors, JAX, Paddle) it becomes ``dict(meta=…, state_dict=…)`` with ``backbone.…`` and
    ``cls_head.fc_cls.…``. The model has the last word, see :func:`adapt_checkpoint`.
    """
    contents = read_file(fetch(source), map_location=map_location or 'cpu')
    if contents.whole is not None and _is_of_mmengine(contents.whole):
        return contents.whole
    found = detect(dict(unstack_blocks(contents.tensors)))
    if contents.whole is not None and (
        found is None or found[0].name not in ('official', 'huggingface')
    ):
        return contents.whole
    if found is None:
        return {'state_dict': _moved(contents.tensors, map_location)}
    weights, is_image = _translate_without_seeding(contents, found[0])
    told = weights.describe()
    if weights.named_like_ours and 'img_size' not in weights.facts:
        told.pop('img_size', None)  # a guess, which the model may correct
    if is_image:
        del told['attention_type']  # of the model, once it is known
    tensors = _moved(to_format(weights, 'mmtimesformer'), map_location)
    meta: dict[str, Any] = {'mmtimesformer': told}
    if told.get('classes'):
        meta['dataset_meta'] = {'classes': told['classes']}
    return {'meta': meta, 'state_dict': tensors}


def _is_of_mmengine(checkpoint: Mapping[str, Any]) -> bool:
    """Whether MMEngine's Runner wrote a checkpoint, so that its names are MMAction2's."""
    meta = checkpoint.get('meta')
    return isinstance(meta, dict) and 'mmengine_version' in meta


def config_differences(checkpoint: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Say where a checkpoint's preprocessing and a config's differ, both values each time.

    Args:
        checkpoint: As MMEngine loads it, with ``meta``.
        config: The config of the run that loads it.
    """
    return differences(find_metadata(checkpoint, {}), metadata_of_config(config))


def _check_heads(weights: Weights, num_heads: int | None) -> None:
    """Compare a number of heads that was given with the width and with the metadata."""
    cls_token = weights.tensors.get('cls_token')
    if num_heads is None or cls_token is None:
        return
    width, told = cls_token.shape[-1], weights.num_heads
    if num_heads < 1 or width % num_heads:
        raise CheckpointError(
            f'num_heads={num_heads} does not divide the width {width} of the checkpoint; give '
            'num_heads (--num-heads) as it was trained',
            weights.load_report,
        )
    if told and told != num_heads:
        raise CheckpointError(
            f'num_heads={num_heads} differs from {told} in the metadata of the checkpoint; leave '
            'num_heads (--num-heads) out',
            weights.load_report,
        )


def contents_to_canonical(contents: Contents, **how: Any) -> Weights:
    """Bring what a file holds under our names; the file's tensors are given away."""
    facts = find_metadata(contents.beside, contents.tensors)
    tensors, contents.tensors, contents.whole = contents.tensors, {}, None
    return to_canonical(tensors, facts=facts, **how)


def backbone_of(model: nn.Module) -> tuple[str, Any] | None:
    """Find our backbone in a model: the prefix of its names, and it; None if there is none."""
    for name, module in model.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        if {'cls_token', 'pos_embed'} <= set(parameters) and hasattr(module, 'grid'):
            return (f'{name}.' if name else ''), module
    return None


def adapt_contents(
    contents: Contents,
    model: nn.Module,
    *,
    change_attention: bool = False,
    allow_missing: Sequence[str] = (),
    source_size: Size | None = None,
    resize: str = 'grid',
    keep_head: bool | None = None,
) -> Adapted:
    """Make the weights of a file those of a model: names, attention type, sizes, classifier.

    The arguments are those of :func:`load_checkpoint`.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs.
        NonFiniteError: A weight is NaN or infinite.
    """
    adapted = _adapt_contents(
        contents,
        model,
        change_attention=change_attention,
        allow_missing=allow_missing,
        source_size=source_size,
        resize=resize,
        keep_head=keep_head,
    )
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    check_weights(adapted.state_dict, names)
    return adapted


def _adapt_contents(
    contents: Contents,
    model: nn.Module,
    *,
    change_attention: bool,
    allow_missing: Sequence[str],
    source_size: Size | None,
    resize: str,
    keep_head: bool | None,
) -> Adapted:
    found = backbone_of(model)
    if found is None:
        raise TypeError(
            f'{type(model).__name__} has no TimeSformer of ours inside; build the model with '
            "backbone=dict(type='mmtimesformer.TimeSformer', …)"
        )
    prefix, backbone = found
    wanted = dict(model.state_dict())
    own = {name.removeprefix(prefix) for name in wanted if name.startswith(prefix)}
    if _has_parts_of_the_users(own) and set(contents.tensors) >= {prefix + name for name in own}:
        return _adapt_same_model(contents, wanted)

    time_embed = wanted.get(f'{prefix}time_embed')
    weights = contents_to_canonical(
        contents,
        attention_type=attention_type_of(own),
        num_frames=None if time_embed is None else time_embed.shape[1],
        source_size=source_size,
        resize=resize,
        change_attention=change_attention,
        keep_head=keep_head,
        model_grid=tuple(backbone.grid),
    )
    weights.load_report.target = type(model).__name__
    _compare_hyperparameters(weights, backbone)
    _give_qkv_bias(weights, own)
    return _match(weights, wanted, prefix, tuple(allow_missing))


def _with_fresh(adapted: Adapted, model: nn.Module) -> dict[str, Tensor]:
    """A whole state dict: what is fresh by the account stays as the model has it."""
    return {
        name: adapted.state_dict.get(name, tensor) for name, tensor in model.state_dict().items()
    }


def _moved(tensors: dict[str, Tensor], map_location: Any) -> dict[str, Tensor]:
    if not isinstance(map_location, str | torch.device):
        return tensors
    return {name: tensor.to(map_location) for name, tensor in tensors.items()}


def _translate_without_seeding(contents: Contents, form: Format) -> tuple[Weights, bool]:
    """Rename only; an image ViT stays without time until it meets a model."""
    told = find_metadata(contents.beside, contents.tensors).get('attention_type')
    is_image = not form.is_video and told is None
    weights = contents_to_canonical(
        contents,
        attention_type='space_only' if is_image else None,
        keep_head=not is_image,
        unknown_grid=True,
    )
    weights.load_report.check()
    return weights, is_image


def _has_parts_of_the_users(names: set[str]) -> bool:
    known = FORMATS['mmtimesformer'].names('', len(names))
    return not all(name in known for name in names)


def _adapt_same_model(contents: Contents, wanted: Mapping[str, Tensor]) -> Adapted:
    """A checkpoint of a model with parts of the user's own: their names are nobody else's."""
    ours = FORMATS['mmtimesformer']
    load_report = LoadReport(source=ours.title, target='the same model')
    state_dict: dict[str, Tensor] = {}
    for name, tensor in contents.tensors.items():
        if name in wanted and name.startswith(HEADS_OF_MODELS) and _differ(tensor, wanted[name]):
            load_report.add('dropped', name, note=_other_classes(len(tensor), len(wanted[name])))
            load_report.add('fresh', name, note=f'a new classifier of {len(wanted[name])} classes')
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
    return Adapted(state_dict, load_report, find_metadata(contents.beside, {}))


def _compare_hyperparameters(weights: Weights, backbone: Any) -> None:
    """What no shape shows: the number of heads, and the epsilon of the norms."""
    has = weights.num_heads or weights.facts.get('num_heads')
    attention = getattr(next(iter(backbone.blocks)), 'attn', None)
    wanted = getattr(attention, 'num_heads', None)
    if has and wanted and has != wanted:
        raise CheckpointError(
            f'the checkpoint has {has} attention heads, the model {wanted}: every shape would fit '
            f'and every number be wrong; set backbone.num_heads to {has}',
            weights.load_report,
        )
    has, wanted = weights.facts.get('norm_eps'), getattr(backbone.norm, 'eps', None)
    if has and wanted and has != wanted:
        weights.load_report.warnings.append(
            f'norm_eps: the checkpoint was trained with {has:g}, the model has {wanted:g}; set '
            f'backbone.norm_eps to {has:g} for the very same numbers'
        )


def _give_qkv_bias(weights: Weights, own: set[str]) -> None:
    """Where the model has a bias of queries, keys and values and the checkpoint has none at all."""
    if weights.has_qkv_bias:
        return
    for name in sorted(own):
        weight = weights.tensors.get(name.removesuffix('bias') + 'weight')
        if name.endswith('qkv.bias') and weight is not None:
            weights.tensors[name] = weight.new_zeros(len(weight))
            weights.load_report.add('seeded', name, name, 'zero, the same as no bias')


def _match(
    weights: Weights, wanted: Mapping[str, Tensor], prefix: str, allow_missing: tuple[str, ...]
) -> Adapted:
    load_report, facts = (
        weights.load_report,
        weights.describe() if weights.load_report.complete else {},
    )
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
    said = set(load_report.keys('missing')) | set(load_report.keys('fresh'))
    for name in wanted:
        ours = name.removeprefix(prefix)
        if name in state_dict or name in said or ours in said:
            continue
        if name.startswith(allow_missing) or ours.startswith(allow_missing):
            load_report.add('fresh', name, note='allowed by allow_missing')
        else:
            load_report.add('missing', name)
    load_report.check()
    return Adapted(state_dict, load_report, facts)


def _match_head(weights: Weights, wanted: Mapping[str, Tensor], head: str | None) -> None:
    has = weights.tensors.get('head.weight')
    needs = wanted[f'{head}weight'] if head else None
    if has is not None and (needs is None or _differ(has, needs)):
        why = 'the model has no classifier'
        if needs is not None:
            why = _other_classes(len(has), len(needs))
        weights.drop(['head.weight', 'head.bias'], why)
    if needs is not None and 'head.weight' not in weights.tensors:
        for leaf in ('weight', 'bias'):
            if f'{head}{leaf}' in wanted:
                note = f'a new classifier of {len(needs)} classes'
                weights.load_report.add('fresh', f'{head}{leaf}', note=note)


def _other_classes(has: int, needs: int) -> str:
    return f'a classifier of {has} classes, the model has {needs}'


def _differ(a: Tensor, b: Tensor) -> bool:
    return a.shape != b.shape


def _refuse_names(weights: Weights, wanted: Mapping[str, Tensor], prefix: str) -> None:
    backbone = [name for name in weights.tensors if not name.startswith('head.')]
    foreign = [name for name in backbone if prefix + name not in wanted]
    blocks = [name.removeprefix(prefix) for name in wanted if name.startswith(f'{prefix}blocks.')]
    layers = len({name.split('.')[1] for name in blocks})
    hint = 'set the parts of the backbone to those of the checkpoint'
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
    if not _differ(has, wanted):
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
