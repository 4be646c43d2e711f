"""Save a classifier as a Hugging Face folder, and upload the folder to the hub."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mmtimesformer.checkpoints.download import import_extra
from mmtimesformer.checkpoints.load_report import LoadReport
from mmtimesformer.checkpoints.metadata import ModelMetadata, metadata_of_config
from mmtimesformer.checkpoints.model_card import ModelCard
from mmtimesformer.checkpoints.save import HubFiles, weights_of, write_folder
from mmtimesformer.config.label_checks import is_regression_head
from mmtimesformer.heads import FUSIONS
from mmtimesformer.inference.inference_config import InferenceConfig

if TYPE_CHECKING:
    from mmtimesformer.inference.classifier import VideoClassifier

RESAMPLES = {'nearest': 0, 'lanczos': 1, 'bilinear': 2, 'bicubic': 3, 'box': 4, 'hamming': 5}
SHORT_SIDES = {'ShortSideResize': 'size', 'ProcessorResize': 'size', 'Resize': 'scale'}


@dataclass(frozen=True)
class Upload:
    """What is uploaded, and where.

    Attributes:
        repository: ``owner/name``.
        revision: Its branch.
        files: Name of each file → bytes.
        url: Of the commit; ``None`` for a dry run.
    """

    repository: str
    revision: str
    files: dict[str, int]
    url: str | None = None

    def __str__(self) -> str:
        what = 'uploaded to' if self.url else 'dry run, nothing is uploaded; it would go to'
        lines = [f'{what} {self.repository}, revision {self.revision}:']
        lines += [f'  {name}  {size:,} bytes' for name, size in self.files.items()]
        return '\n'.join([*lines, *([self.url] if self.url else [])])


def save_folder(
    classifier: 'VideoClassifier', folder: str | os.PathLike[str], card: ModelCard
) -> LoadReport:
    """Write a Hugging Face folder, see :meth:`VideoClassifier.save_pretrained`."""
    path = Path(folder).expanduser()
    if not str(folder):
        raise ValueError('the name of the folder is empty; give a folder')
    _check_model(classifier)
    if path.exists() and not path.is_dir():
        raise ValueError(f'{path} is a file, and a Hugging Face folder is a folder; give another')
    source = Path(classifier.checkpoint).expanduser()
    if path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f'{path} is the checkpoint that was loaded; give another folder')
    config = classifier.inference_config
    weights = weights_of(classifier.model)
    stated = metadata_of_config({'model': config.model, 'test_pipeline': config.pipeline})
    weights.metadata.update(
        ModelMetadata(
            classes=classifier.classes,
            licence=classifier.metadata.licence,
            temperature=classifier.metadata.temperature,
            num_frames=stated.num_frames,
            preprocessing=stated.preprocessing,
        )
    )
    card.protocol = [*_protocol(classifier), *card.protocol]
    files = HubFiles(card, config.multi_label, _processor(config), _text(config))
    write_folder(weights, path, files)
    return weights.load_report


def upload(
    classifier: 'VideoClassifier',
    repository: str,
    card: ModelCard,
    private: bool | None,
    revision: str | None,
    dry_run: bool,
    message: str,
) -> Upload:
    """Upload a classifier, see :meth:`VideoClassifier.push_to_hub`."""
    if repository.count('/') != 1 or not all(repository.split('/')):
        raise ValueError(f'repo_id {repository!r} is not owner/name; correct it')
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repository.rpartition('/')[2]
        save_folder(classifier, folder, card)
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        branch = revision or 'main'
        if dry_run:
            return Upload(repository, branch, files)
        hub = import_extra('huggingface_hub', f'hf://{repository}')
        try:
            api = hub.HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository,
                folder_path=folder,
                revision=branch,
                commit_message=message,
            )
        except Exception as error:  # the hub's errors have no common parent
            raise ValueError(
                f'cannot upload to {repository} ({type(error).__name__}: '
                f'{str(error).strip().partition(chr(10))[0]}); check the name, the connection and '
                'your token (`hf auth login`)'
            ) from error
    return Upload(repository, branch, files, str(commit.commit_url))


def _check_model(classifier: 'VideoClassifier') -> None:
    """Refuse what transformers' model cannot hold."""
    classifier.need_exact('a model to save')
    _check_modules(classifier.model.backbone)
    head = classifier.inference_config.model.get('cls_head')
    names = set(classifier.model.cls_head.state_dict())
    if is_regression_head(head) or not names <= {'fc_cls.weight', 'fc_cls.bias'}:
        raise ValueError(
            f'a head of the type {(head or {}).get("type")} has no place in '
            "transformers' TimesformerForVideoClassification, which holds a linear classifier; "
            'keep the .pth file'
        )


def _check_modules(backbone: nn.Module) -> None:
    """Refuse a backbone with other computations than transformers' model has.

    A block of your own may have the names and shapes of ours, so that every weight would fit and
    every number be wrong.
    """
    for name, module in backbone.named_modules():
        package = type(module).__module__.partition('.')[0]
        if package not in ('mmtimesformer', 'mmengine', 'torch'):
            raise ValueError(
                f'backbone.{name} is a {type(module).__name__}, a component of your own, which '
                "transformers' model does not have: its scores would be others; keep the .pth file"
            )
    modules: list[Any] = list(backbone.modules())
    found: dict[str, set[float]] = {
        'norm_eps': {module.eps for module in modules if isinstance(module, nn.LayerNorm)},
        'num_heads': {module.num_heads for module in modules if hasattr(module, 'num_heads')},
    }
    for what, values in found.items():
        if len(values) > 1:
            raise ValueError(
                f'the blocks of the backbone have several values of {what} ({sorted(values)}), and '
                "transformers' model has one; keep the .pth file"
            )


def _text(config: InferenceConfig) -> str:
    """Return the config of a test as text, as a training checkpoint holds it."""
    values: dict[str, Any] = {
        'model': config.to_build(),
        'test_pipeline': config.pipeline,
        'protocol': config.protocol,
    }
    if config.multi_label:
        values['test_dataloader'] = {
            'dataset': {'multi_class': True, 'pipeline': config.pipeline},
        }
    return '\n'.join(f'{key} = {_plain(value)!r}' for key, value in values.items()) + '\n'


def _plain(value: Any) -> Any:
    """Return a value of a config as plain dicts, lists and tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _processor(config: InferenceConfig) -> dict[str, Any]:
    """Return the values of ``preprocessor_config.json`` that a config gives."""
    normalise = config.model.get('data_preprocessor') or {}
    values = {
        name: [round(float(x) / 255, 12) for x in normalise[key]]
        for name, key in (('image_mean', 'mean'), ('image_std', 'std'))
        if normalise.get(key) is not None
    }
    return {**values, **_resize_of(config)}


def _resize_of(config: InferenceConfig) -> dict[str, Any]:
    for step in config.pipeline:
        kind = str(step.get('type', '')).rpartition('.')[2]
        if kind == 'ProcessorResize' and not isinstance(step['size'], int):
            height, width = step['size']
            return {
                'size': {'height': height, 'width': width},
                'resample': RESAMPLES[step.get('resample', 'bilinear')],
            }
        if kind in SHORT_SIDES:
            size = step[SHORT_SIDES[kind]]
            name = step.get('resample') or step.get('interpolation', 'bilinear')
            resample = RESAMPLES.get(name, RESAMPLES['bilinear'])
            if not step.get('keep_ratio', True):
                width, height = (size, size) if isinstance(size, int) else size
                return {'size': {'height': height, 'width': width}, 'resample': resample}
            side = max(size) if isinstance(size, tuple | list) and -1 in size else size
            return (
                {'size': {'shortest_edge': side}, 'resample': resample}
                if isinstance(side, int)
                else {}
            )
    return {'do_resize': False}


def _protocol(classifier: 'VideoClassifier') -> list[str]:
    """Return how a video is tested, in words for the model card."""
    steps = [
        ', '.join([str(step['type']).rpartition('.')[2], *_arguments(step)])
        for step in classifier.inference_config.pipeline
    ]
    fusion = FUSIONS.get(classifier.model.cls_head.average_clips or 'prob', '')
    name = classifier.inference_config.protocol
    return [f'protocol: {name or "of its config"}', *steps, f'fusion of views: {fusion}']


def _arguments(step: Mapping[str, Any]) -> list[str]:
    return [f'{key}={value}' for key, value in step.items() if key != 'type']
