"""Build a recognizer from a config or a checkpoint, and load its weights, for inference."""

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmaction.registry import MODELS
from mmaction.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope

import mmtimesformer.datasets
import mmtimesformer.heads  # noqa: F401  (both register components that configs name)
from mmtimesformer.checkpoints import LoadReport, read_file
from mmtimesformer.checkpoints.convert import Weights
from mmtimesformer.checkpoints.download import fetch
from mmtimesformer.checkpoints.load import adapt_contents, match_weights
from mmtimesformer.checkpoints.metadata import (
    ModelMetadata,
    differences,
    metadata_of_config,
    need_temperature,
)
from mmtimesformer.checkpoints.preprocessing import CHOICES, Stated
from mmtimesformer.class_names import class_names_of, stated_data_set
from mmtimesformer.cli import require_file
from mmtimesformer.config.find import read_config
from mmtimesformer.config.label_checks import with_temperature
from mmtimesformer.inference.huggingface import is_hub_folder
from mmtimesformer.inference.inference_config import (
    InferenceConfig,
    inference_config_of,
    inference_config_of_checkpoint,
    no_more_memory_than,
    read_classes,
)
from mmtimesformer.inference.views import Views

PathLike = str | os.PathLike[str]


@dataclass
class Loaded:
    """A recognizer with its weights and its test pipeline."""

    checkpoint: str  # as it was given
    model: Any
    views: Views
    config: InferenceConfig
    load_report: LoadReport
    metadata: ModelMetadata
    has_classifier: bool  # whether the checkpoint has the weights of the classifier too
    class_sources: list[Any]  # names of the classes, or files of them, in order of preference

    def check_classifier(self) -> None:
        """Refuse to predict labels with a newly initialized classifier."""
        if self.has_classifier:
            return
        count = self.metadata.num_classes
        why = f'has a classifier of {count} classes' if count else 'has no classifier of videos'
        raise ValueError(
            f'checkpoint {self.checkpoint} {why}, {self.config.name} wants '
            f'{self.model.cls_head.num_classes}, so labels would mean nothing; give the config '
            'that the checkpoint was trained with (features need none)'
        )


def load_recognizer(
    config: Any,
    checkpoint: PathLike | None,
    calibrated: bool = False,
    preprocessing: str = 'checkpoint',
) -> Loaded:
    """Build the model of a config, or of the checkpoint without one, and load the weights.

    Arguments and errors are those of :class:`~mmtimesformer.inference.VideoClassifier`.
    """
    if checkpoint is None:
        hint = ''
        if config is not None and str(config).endswith(('.pth', '.pyth', '.safetensors')):
            hint = f' (as in VideoClassifier(checkpoint={str(config)!r}))'
        raise ValueError(f'a classifier needs weights; give checkpoint{hint}')
    require_file(checkpoint, 'checkpoint', 'correct the path')
    contents = read_file(fetch(checkpoint))
    meta = contents.extras.get('meta')
    stored = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    if is_hub_folder(contents.extras):
        stored = None  # the names are in config.json, which a user may edit
    register_all_modules(init_default_scope=False)
    source: Any = contents
    limit: AbstractContextManager[None] = nullcontext()
    if config is None:
        inference_config, source = inference_config_of_checkpoint(contents, str(checkpoint))
        limit = no_more_memory_than(source.tensors, str(checkpoint))
    else:
        inference_config = _read_config(config)
        of_checkpoint = Stated.by(contents.extras, str(checkpoint))
        _set_preprocessing(inference_config, of_checkpoint, preprocessing)
    if calibrated:
        temperature = need_temperature(contents.extras, str(checkpoint))
        head = with_temperature(inference_config.model['cls_head'], temperature)
        inference_config.model['cls_head'] = head
    with DefaultScope.overwrite_default_scope('mmaction'), limit:
        model = MODELS.build(inference_config.to_build())
        views = Views(inference_config.pipeline)
    adapt = match_weights if isinstance(source, Weights) else adapt_contents
    adapted = adapt(source, model)
    model.load_state_dict(adapted.complete(model))
    wanted = metadata_of_config(
        {'model': inference_config.model, 'test_pipeline': inference_config.pipeline}
    )
    for warning in dict.fromkeys(
        [
            *inference_config.notes,
            *adapted.load_report.warnings,
            *differences(adapted.metadata, wanted),
        ]
    ):
        warnings.warn(warning, stacklevel=3)
    names = stored.get('classes') if isinstance(stored, dict) else None
    lists = [x for x in (names, adapted.metadata.classes) if isinstance(x, list | tuple)]
    named = inference_config.classes
    if isinstance(named, str) and (config is None or not Path(named).is_file()):
        named = None  # a missing file, or one that only a checkpoint names
    stated = [*inference_config.data_set_texts, _file_name(config), _file_name(checkpoint)]
    data_set = stated_data_set(stated, model.cls_head.num_classes)
    public = class_names_of(data_set) if data_set else None
    return Loaded(
        str(checkpoint), model, views, inference_config, adapted.load_report, adapted.metadata,
        has_classifier=not adapted.load_report.keys('newly initialized'),
        class_sources=[source for source in (*lists, named, public) if source],
    )  # fmt: skip


def _set_preprocessing(config: InferenceConfig, stated: Stated, choice: str) -> None:
    """Put the checkpoint's preprocessing into a config where they differ, and note it once."""
    if choice not in CHOICES:
        raise ValueError(f'preprocessing={choice!r} is not known; give one of {", ".join(CHOICES)}')
    values = {'model': config.model, 'test_pipeline': config.pipeline}
    found = stated.differences(values)
    if not found or choice == 'config':
        return
    config.pipeline = stated.apply_to(config.model, config.pipeline)
    left = stated.differences({'model': config.model, 'test_pipeline': config.pipeline})
    if used := [one for one in found if one not in left]:
        config.notes.append(
            f"{'; '.join(used)}: the checkpoint's preprocessing is used (preprocessing='config' "
            "takes the config's)"
        )


def _file_name(path: Any) -> str:
    """Return the name of a config or checkpoint, without its folder."""
    return Path(str(getattr(path, 'filename', path) or '')).name


def class_names(given: Any, sources: Sequence[Any], num_classes: int) -> list[str] | None:
    """Return the names of the classes: those given, else of the first source that fits, else none.

    Raises:
        ValueError: Names were given, and their number is not that of the classes.
    """
    if given is not None:
        names = read_classes(given)
        if len(names) != num_classes:
            raise ValueError(
                f'there are {len(names)} class names and the model has {num_classes} '
                'classes; correct classes (--classes)'
            )
        return names
    for source in sources:
        names = read_classes(source)
        if len(names) == num_classes:
            return names
        warnings.warn(
            f'there are {len(names)} class names and the model has {num_classes} '
            'classes: classes are numbers, not names',
            stacklevel=3,
        )
    return None


def check_device(device: str | torch.device | None) -> torch.device:
    """Return the device; the first GPU if there is one, for ``None``.

    Raises:
        ValueError: It is unknown, or PyTorch cannot compute there.
    """
    if device is None:
        return torch.device(get_device())
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'device {device!r} is not known; give cpu, cuda or cuda:1') from error
    if wanted.type == 'cuda' and (wanted.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'device {device}: this process sees {torch.cuda.device_count()} GPUs; give cpu, or '
            'leave it out'
        )
    try:
        torch.zeros(1, device=wanted).cpu()
    except Exception as error:
        raise ValueError(
            f'device {device}: PyTorch {torch.__version__} cannot compute there on this machine; '
            'give cpu, or leave it out'
        ) from error
    return wanted


def _read_config(config: Any) -> InferenceConfig:
    if isinstance(config, Config):
        return inference_config_of(config.to_dict(), str(config.filename or 'the config'))
    cfg = read_config(str(config))
    return inference_config_of(cfg.to_dict(), f'config {Path(cfg.filename).name}')
