"""Save a model or converted weights in a file of one of four formats."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmtimesformer.checkpoints.convert import Weights, attention_type_of, to_canonical, to_format
from mmtimesformer.checkpoints.key_maps import is_square
from mmtimesformer.checkpoints.load import HEADS_OF_MODELS, Source, backbone_of
from mmtimesformer.checkpoints.load_report import CheckpointError, LoadReport
from mmtimesformer.checkpoints.metadata import ModelMetadata, heads_of
from mmtimesformer.checkpoints.model_card import MARK, ModelCard
from mmtimesformer.checkpoints.readers import write_safetensors, write_torch
from mmtimesformer.fileio.atomic import write_json_atomically, write_text_atomically

# In a folder with our files, transformers or we would read these too.
OTHER_FILES = ('video_preprocessor_config.json', 'processor_config.json')
ENDINGS = ('.pth', '.pyth', '.pt', '.safetensors')


def save_checkpoint(
    weights: Weights | nn.Module | Mapping[str, Tensor],
    path: Source,
    to: str = 'mmtimesformer',
    meta: Mapping[str, object] | None = None,
) -> LoadReport:
    """Write weights in one of four formats.

    Args:
        weights: What :func:`read_checkpoint` gives, a model of ours, or a state dict in any
            format.
        path: ``….pth`` or ``….safetensors``; for ``'huggingface'``, a folder, or a
            ``….safetensors`` file alone.
        to: ``'mmtimesformer'``, ``'official'``, ``'huggingface'`` or ``'mmaction2'``.
        meta: Metadata to add to those of the weights, see
            :mod:`~mmtimesformer.checkpoints.metadata`.

    Raises:
        CheckpointError: A key is missing or unknown, or the format cannot hold the weights.
    """
    path = Path(path).expanduser()
    weights = weights_of(weights)
    weights.metadata.update(ModelMetadata.parse(meta or {}, strict=True))
    weights.load_report.check()
    metadata = weights.describe()
    if path.suffix not in ENDINGS and not (to == 'huggingface' and path.suffix == ''):
        raise ValueError(
            f'{path} has no known ending; end it with .pth or .safetensors'
            + (', or give a folder' if to == 'huggingface' else '')
        )
    tensors = {name: tensor.contiguous() for name, tensor in to_format(weights, to).items()}
    meta_entry = metadata.to_meta()
    if path.suffix == '.safetensors':
        write_safetensors(tensors, path, meta_entry)
    elif to == 'huggingface' and path.suffix == '':
        write_folder(weights, path)
    elif to == 'official':
        config = _official_config(weights, metadata)
        entries: dict[str, Any] = {'model_state': tensors, 'cfg': config}
        if weights.grid is not None and weights.grid[0] != weights.grid[1]:
            entries['meta'] = meta_entry  # its config has no place for a height and a width
        write_torch(entries, path)
    elif to == 'huggingface':
        _refuse_a_square_by_chance(weights)
        write_torch(tensors, path)
    else:
        write_torch({'meta': meta_entry, 'state_dict': tensors}, path)
    return weights.load_report


@dataclass
class HubFiles:
    """What a Hugging Face folder holds besides the weights and their metadata.

    Attributes:
        card: What the model card states.
        multi_label: Whether each class is a sigmoid by itself.
        processor: Values of ``preprocessor_config.json`` other than those of the metadata.
        stored_config: Text of our config, so that the folder is tested here as it was trained.
    """

    card: ModelCard = field(default_factory=ModelCard)
    multi_label: bool = False
    processor: Mapping[str, object] = field(default_factory=dict)
    stored_config: str | None = None


def write_folder(weights: Weights, folder: Path, files: HubFiles | None = None) -> None:
    """Write a folder that transformers and this package load: four files.

    ``config.json``, ``preprocessor_config.json``, ``model.safetensors``, and ``README.md``, the
    model card (unless the folder has one that was not written here).

    Raises:
        CheckpointError: The format cannot hold the weights.
        ValueError: The folder has a file that would contradict the new ones.
    """
    files = files or HubFiles()
    metadata = weights.describe()
    for name in OTHER_FILES:
        if (folder / name).exists():
            raise ValueError(
                f'folder {folder} has {name}, which would contradict the new files; give another '
                'folder, or remove it'
            )
    config = _huggingface_config(weights, metadata)
    if files.multi_label:
        config['problem_type'] = 'multi_label_classification'
    processor = {**_huggingface_preprocessor(weights, metadata), **files.processor}
    meta: dict[str, object] = {**metadata.to_meta(), 'processor': processor}
    if files.stored_config is not None:
        meta['cfg'] = files.stored_config
    tensors = {name: t.contiguous() for name, t in to_format(weights, 'huggingface').items()}
    write_json_atomically(folder / 'config.json', config)
    write_json_atomically(folder / 'preprocessor_config.json', processor)
    readme = folder / 'README.md'
    if not readme.exists() or MARK in readme.read_text(encoding='utf-8', errors='replace'):
        write_text_atomically(readme, files.card.text(folder.resolve().name, metadata))
    write_safetensors(tensors, folder / 'model.safetensors', meta)


def weights_of(weights: Weights | nn.Module | Mapping[str, Tensor]) -> Weights:
    """Bring a model of ours, or a state dict in any format, under our names.

    Raises:
        CheckpointError: The format is not recognised.
        TypeError: The model has no backbone of ours.
    """
    if isinstance(weights, Weights):
        return weights
    if isinstance(weights, Mapping):
        return to_canonical(dict(weights))
    found = backbone_of(weights)
    if found is None:
        raise TypeError(f'{type(weights).__name__} has no TimeSformer of ours inside')
    backbone = found[1]
    height, width = (n * backbone.patch_size for n in backbone.grid)
    metadata = ModelMetadata(
        num_heads=getattr(getattr(backbone.blocks[0], 'attn', None), 'num_heads', None),
        norm_eps=backbone.norm.eps,
        img_size=(height, width),
        attention_type=attention_type_of(backbone.state_dict()),
    )
    tensors = {f'backbone.{name}': tensor for name, tensor in backbone.state_dict().items()}
    for name, tensor in weights.state_dict().items():
        if name.startswith(HEADS_OF_MODELS):
            tensors[f'cls_head.fc_cls.{name.rsplit(".", 1)[1]}'] = tensor
    return to_canonical(tensors, metadata=metadata)


# -- config files of the other formats -------------------------------------------------------------


def _huggingface_config(weights: Weights, metadata: ModelMetadata) -> dict[str, Any]:
    height, width = weights.known_size()
    if height != width:
        raise CheckpointError(
            f"Hugging Face's TimeSformer holds square frames only, this is {height} x {width}; "
            f'set img_size (--img-size) to one number',
            weights.load_report,
        )
    has_head = 'head.weight' in weights.tensors
    width = weights.tensors['cls_token'].shape[-1]
    config: dict[str, Any] = {
        'model_type': 'timesformer',
        'architectures': ['TimesformerForVideoClassification' if has_head else 'TimesformerModel'],
        'attention_type': weights.attention_type,
        'image_size': height,
        'patch_size': weights.patch_size,
        'num_channels': weights.tensors['patch_embed.proj.weight'].shape[1],
        'num_frames': metadata.num_frames or 8,
        'hidden_size': width,
        'num_hidden_layers': weights.depth,
        'num_attention_heads': heads_of(width, metadata.num_heads),
        'intermediate_size': len(weights.tensors['blocks.0.mlp.fc1.weight']),
        'hidden_act': 'gelu',
        'layer_norm_eps': 1e-6 if metadata.norm_eps is None else metadata.norm_eps,
        'qkv_bias': weights.has_qkv_bias,
    }
    if has_head:
        names = metadata.classes or [f'LABEL_{i}' for i in range(metadata.num_classes or 0)]
        config['id2label'] = {str(i): name for i, name in enumerate(names)}
        config['label2id'] = {name: i for i, name in enumerate(names)}
    return config


def _refuse_a_square_by_chance(weights: Weights) -> None:
    """Refuse a grid such as 4 x 9, which a file without metadata would give back as 6 x 6."""
    height, width = weights.grid or (0, 0)
    if height != width and is_square(height * width):
        raise CheckpointError(
            f'{height} x {width} patches are as many as a square has, and a .pth file in Hugging '
            "Face's names has no place for the size; end the path with .safetensors",
            weights.load_report,
        )


def _huggingface_preprocessor(weights: Weights, metadata: ModelMetadata) -> dict[str, Any]:
    preprocessing = metadata.preprocessing
    size = preprocessing.size or weights.known_size()[0]
    height, width = (size, size) if isinstance(size, int) else size
    config = {
        'image_processor_type': 'VideoMAEImageProcessor',
        'do_resize': True,
        'size': {'shortest_edge': min(height, width)},
        'do_center_crop': True,
        'crop_size': {'height': height, 'width': width},
        'do_rescale': True,
        'rescale_factor': 1 / 255,
        'do_normalize': True,
        'image_mean': preprocessing.mean,
        'image_std': preprocessing.std,
        'channel_order': preprocessing.channel_order,
        'frame_interval': preprocessing.frame_interval,
        'sampling': preprocessing.sampling,
    }
    if preprocessing.channel_order == 'BGR':
        weights.load_report.warnings.append(
            'the model takes BGR, and transformers gives RGB to it: there, swap the channels of '
            'pixel_values'
        )
    if preprocessing.mean is None:
        weights.load_report.warnings.append(
            'the checkpoint has no mean and std, so preprocessor_config.json has none either, and '
            'Hugging Face will use its own; add them there if you know them'
        )
    return {key: value for key, value in config.items() if value is not None}


def _official_config(weights: Weights, metadata: ModelMetadata) -> str:
    """Return the official config, which is YAML: the keys that its model and transforms read."""
    preprocessing = metadata.preprocessing
    size = preprocessing.size or (weights.img_size or [None])[0]
    data = {
        'MEAN': preprocessing.mean,
        'STD': preprocessing.std,
        'NUM_FRAMES': metadata.num_frames,
        'SAMPLING_RATE': preprocessing.frame_interval,
        'TEST_CROP_SIZE': size,
        'TRAIN_CROP_SIZE': size,
    }
    lines = ['DATA:']
    lines += [f'  {key}: {value}' for key, value in data.items() if value is not None]
    lines += ['TIMESFORMER:', f'  ATTENTION_TYPE: {weights.attention_type}', 'MODEL:']
    lines += [f'  NUM_CLASSES: {metadata.num_classes or 0}', '  ARCH: vit']
    return '\n'.join(lines) + '\n'
