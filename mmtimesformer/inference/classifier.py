"""One object that knows a model, how it wants its videos, and what its classes are called."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmaction.registry import MODELS
from mmaction.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from rich.console import Console
from torch import Tensor

import mmtimesformer.datasets
import mmtimesformer.heads  # both register parts that configs name
from mmtimesformer.checkpoints import read_file
from mmtimesformer.checkpoints.download import fetch
from mmtimesformer.checkpoints.load import adapt_contents
from mmtimesformer.checkpoints.metadata import ModelMetadata, differences, metadata_of_config
from mmtimesformer.cli import require_file
from mmtimesformer.compat.data_samples import scores_of
from mmtimesformer.config.find import read_config
from mmtimesformer.config.label_checks import to_build
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.heads import FUSIONS
from mmtimesformer.inference import features as feature_maps
from mmtimesformer.inference.inference_config import (
    InferenceConfig,
    inference_config_of,
    inference_config_of_checkpoint,
    no_more_memory_than,
    read_classes,
)
from mmtimesformer.inference.inputs import (
    Given,
    check_exists,
    error_message,
    is_many,
    short_reason,
    videos_of,
)
from mmtimesformer.inference.prediction import (
    THRESHOLD,
    Prediction,
    Predictions,
    Skipped,
    best_of,
)
from mmtimesformer.inference.quantization import arithmetic, prepare
from mmtimesformer.inference.sliding_window import Moment, Timeline, Windows
from mmtimesformer.inference.views import Views
from mmtimesformer.non_finite import (
    EARLY,
    REASON,
    NonFiniteError,
    about_scores,
    is_finite,
)
from mmtimesformer.terminal import track

Data = dict[str, Any]


class VideoClassifier:
    """Labels, features and timelines of videos.

    Views, crops, normalisation and the fusion of views are those of the config's test, so the
    scores are those of ``tools/test.py``. The data that it was trained on need not be there.

    Where the config has a loss of sigmoids (``BCELossWithLogits``) or ``multi_class=True``, the
    score of a class is the mean of its sigmoid over views, also if an older config says
    ``average_clips='prob'``: a softmax of such logits would be no probability.

    Args:
        config: A file, the name of a shipped config, a :class:`~mmengine.config.Config`, or
            ``None`` where the checkpoint tells enough: one of a training does, whose config is read
            as plain values and never executed, and so does a converted one that tells its
            preprocessing.
        checkpoint: Weights of any system: a path, a folder, ``https://…``, ``hf://owner/name``.
        device: Such as ``'cpu'`` or ``'cuda:1'``; the first GPU if there is one, if not given.
        classes: Names of the classes: a list, or a file with a name a line. If not given, those in
            the checkpoint, else those of the config's data set if they are there, else numbers.
        precision: ``'fp32'``, ``'bf16'`` or ``'int8'``, see
            :mod:`mmtimesformer.inference.quantization`; the short ones move scores.

    Attributes:
        model: The recogniser, in evaluation.
        views: How a video becomes what it sees.
        classes: The names, or ``None``.
        recipe: What the config, or the checkpoint, told.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: The checkpoint does not fit the config, or does not tell enough by itself.

    Example:
        >>> clf = VideoClassifier('timesformer_divST-tiny_moving-shapes', 'epoch_28.pth')
        >>> print(clf('video.mp4', topk=5))
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Config | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        classes: str | os.PathLike[str] | Sequence[str] | None = None,
        precision: str = 'fp32',
    ) -> None:
        if checkpoint is None:
            hint = ''
            if config is not None and str(config).endswith(('.pth', '.pyth', '.safetensors')):
                hint = f' (as in VideoClassifier(checkpoint={str(config)!r}))'
            raise ValueError(f'a classifier needs weights; give checkpoint{hint}')
        self.checkpoint = str(checkpoint)
        self.device = _check_device(device)
        self.given_config = None if config is None else str(getattr(config, 'filename', config))
        contents = read_file(fetch(_check_there(checkpoint)))
        meta = contents.extras.get('meta')
        self._dataset_meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
        register_all_modules(init_default_scope=False)
        limit: AbstractContextManager[None] = nullcontext()
        if config is None:
            self.recipe, contents = inference_config_of_checkpoint(contents, self.checkpoint)
            limit = no_more_memory_than(contents.tensors, self.checkpoint)
        else:
            self.recipe = _read_recipe(config)
        with DefaultScope.overwrite_default_scope('mmaction'), limit:
            self.model = MODELS.build(_to_build(self.recipe))
            self.views = Views(self.recipe.pipeline)
        adapted = adapt_contents(contents, self.model)
        fresh = set(adapted.load_report.keys('newly initialized'))
        state = self.model.state_dict() if fresh else {}
        self.model.load_state_dict({**{name: state[name] for name in fresh}, **adapted.state_dict})
        self._has_classifier = not fresh
        self._source_classes = adapted.metadata.num_classes
        self.load_report = adapted.load_report
        asked = metadata_of_config(
            {'model': self.recipe.model, 'test_pipeline': self.recipe.pipeline}
        )
        for warning in dict.fromkeys(
            [*adapted.load_report.warnings, *differences(adapted.metadata, asked)]
        ):
            warnings.warn(warning, stacklevel=2)
        self.model.to(self.device).eval()
        self.precision = precision
        prepare(self.model, precision, self.device)
        self.classes = self._name_classes(classes, adapted.metadata)

    @property
    def num_classes(self) -> int:
        """Classes that the model tells apart."""
        return int(self.model.cls_head.num_classes)

    @property
    def fusion(self) -> str:
        """How the scores of a video's views become one."""
        average = self.model.cls_head.average_clips
        return FUSIONS[average or 'prob']

    @property
    def is_multi_label(self) -> bool:
        """Whether a video may have several labels, each with a probability of its own."""
        return self.recipe.multi_label or self.model.cls_head.average_clips == 'sigmoid'

    def __call__(
        self,
        video: Any,
        topk: int = 5,
        *,
        fps: float | None = None,
        batch_size: int = 4,
        progress: bool = True,
        threshold: float = THRESHOLD,
    ) -> Any:
        """Classify one video, or many.

        Args:
            video: A file, an array ``(t, H, W, 3)`` of uint8 (RGB), a list of these, or a folder.
            topk: How many of the best classes are told.
            fps: Frames per second of arrays, for configs that count seconds.
            batch_size: Videos that the model sees at a time.
            progress: Show a bar on the terminal when there are many.
            threshold: Of a multi-label model: from which probability on a video has a label.

        Returns:
            A :class:`Prediction`; for a list or a folder :class:`Predictions`, without the files
            that could not be read or whose scores are not finite, which are in its ``skipped``.

        Raises:
            FileNotFoundError: The file or folder is not there.
            NonFiniteError: The scores of the one video, or of the first
                :data:`~mmtimesformer.non_finite.EARLY` or all of many, are NaN or infinite.
            ValueError: The one video, or every one of many, cannot be read.
        """
        self._need_classifier()
        _check_positive(topk=topk, batch_size=batch_size, **({} if fps is None else {'fps': fps}))
        _check_share(threshold=threshold)

        def scores(batch: list[Data]) -> list[np.ndarray]:
            return self._scores(batch)

        predictions: list[Prediction] = []
        skipped: list[Skipped] = []
        for given, result in self._each(video, scores, fps, batch_size, progress):
            if isinstance(result, Skipped):
                skipped.append(result)
            elif is_finite(result):
                predictions.append(self._best(given.name, result, topk, threshold))
            else:
                skipped.append(Skipped(given.name, REASON, non_finite=True))
            self._check_not_all(skipped, len(predictions))
        self._check_not_all(skipped, len(predictions), done=True)
        if skipped and not predictions:
            raise ValueError(
                f'none of {len(skipped)} videos could be read; the first, {skipped[0].video}: '
                f'{skipped[0].reason}'
            )
        return Predictions(predictions, skipped) if is_many(video) else predictions[0]

    def timeline(
        self,
        video: str | os.PathLike[str],
        window: float,
        stride: float | None = None,
        topk: int = 5,
        *,
        batch_size: int = 4,
        progress: bool = True,
        threshold: float = THRESHOLD,
    ) -> Timeline:
        """Classify each moment of a long video, in windows that slide over it.

        Every window is treated as a video of its own. The memory does not depend on the length.

        Args:
            video: A file.
            window: Length of a window, in seconds. Best a little more than a clip spans: frames of
                the clip times their interval.
            stride: From the start of a window to that of the next, in seconds; half a window if not
                given.
            topk: How many of the best classes are told.
            batch_size: Windows that the model sees at a time.
            progress: Show a bar on the terminal.
            threshold: As in :meth:`__call__`.

        Raises:
            FileNotFoundError: The file is not there.
            NonFiniteError: The scores of a window are NaN or infinite.
            ValueError: It cannot be read.
        """
        self._need_classifier()
        stride = window / 2 if stride is None else stride
        _check_positive(window=window, stride=stride, topk=topk, batch_size=batch_size)
        _check_share(threshold=threshold)
        path = Path(video).expanduser()
        check_exists(path, str(video))
        try:
            opened = Video(path)
        except ValueError as error:
            raise ValueError(error_message(error, path, str(video))) from error
        windows = Windows(opened, self.views, window, stride)
        timeline = Timeline(str(video), window, stride)
        waiting = iter(_watch(windows, len(windows), str(video), progress))
        while batch := list(itertools.islice(waiting, self._limited(batch_size))):
            for one, scores in zip(batch, self._scores([w.data for w in batch]), strict=True):
                if not is_finite(scores):
                    told = about_scores([str(video)], 1, self.precision)
                    raise NonFiniteError(f'from {one.start:.1f} to {one.end:.1f} seconds {told}')
                best = self._best(str(video), scores, topk, threshold)
                timeline.moments.append(Moment(one.start, one.end, best))
        timeline.note = windows.note
        return timeline

    def features(
        self,
        video: Any,
        out: str = 'cls',
        layers: int | Sequence[int] | None = None,
        *,
        fps: float | None = None,
        batch_size: int = 4,
        progress: bool = True,
    ) -> Any:
        """Return what the backbone knows of a video, before the classifier.

        Args:
            video: As in :meth:`__call__`.
            out: ``'cls'``, ``'patch_mean'``, ``'frames'`` or ``'tokens'``, see
                :mod:`mmtimesformer.inference.features`.
            layers: Hidden states instead of what leaves the backbone: 0 is the embedded video, -1
                the last layer. A list adds a first axis.
            fps: As in :meth:`__call__`.
            batch_size: As in :meth:`__call__`.
            progress: As in :meth:`__call__`.

        Returns:
            An array of float32; for a list or a folder a dict of them, by name, without the files
            that could not be read (a warning names them).

        Raises:
            NonFiniteError: The features of a video are NaN or infinite.

        Shape:
            - ``cls``, ``patch_mean``: ``views d``
            - ``frames``: ``views t d``
            - ``tokens``: ``views t h w d``
            - with a list of ``layers``: that number of these, as a first axis
        """
        found: dict[str, np.ndarray] = {}
        for given, result in self.each_features(video, out, layers, fps, batch_size, progress):
            if isinstance(result, Skipped) and result.non_finite:
                raise NonFiniteError(about_scores([given.name], 1, self.precision, 'features'))
            if isinstance(result, Skipped):
                warnings.warn(f'{given.name} is skipped: {result.reason}', stacklevel=2)
            else:
                found[given.name] = result
        return found if is_many(video) else next(iter(found.values()))

    def each_features(
        self,
        video: Any,
        out: str = 'cls',
        layers: int | Sequence[int] | None = None,
        fps: float | None = None,
        batch_size: int = 4,
        progress: bool = True,
    ) -> Iterator[tuple[Given, np.ndarray | Skipped]]:
        """Give the features of many videos one by one, as :meth:`features` describes them.

        Raises:
            NonFiniteError: Those of the first :data:`~mmtimesformer.non_finite.EARLY` are NaN or
                infinite.
        """
        chosen = [layers] if isinstance(layers, int) else layers
        self.check_features(out, chosen)
        _check_positive(batch_size=batch_size, **({} if fps is None else {'fps': fps}))

        def extract(batch: list[Data]) -> list[np.ndarray]:
            with torch.inference_mode():
                inputs = self._normalised(batch)
                given = feature_maps.extract(self.model.backbone, inputs.flatten(0, 1), out, chosen)
                parts = feature_maps.by_video(given, len(batch), chosen is not None)
            if isinstance(layers, int):
                parts = [part[0] for part in parts]
            return [part.float().cpu().numpy() for part in parts]

        return self._finite_features(self._each(video, extract, fps, batch_size, progress))

    def _finite_features(
        self, results: Iterable[tuple[Given, np.ndarray | Skipped]]
    ) -> Iterator[tuple[Given, np.ndarray | Skipped]]:
        """Put a :class:`Skipped` in the place of features that are NaN or infinite."""
        skipped: list[Skipped] = []
        finite = 0
        for given, result in results:
            if not isinstance(result, Skipped) and is_finite(result):
                finite += 1
                yield given, result
                continue
            if not isinstance(result, Skipped):
                reason = REASON.replace('scores', 'features')
                result = Skipped(given.name, reason, non_finite=True)
            skipped.append(result)
            self._check_not_all(skipped, finite, 'features')
            yield given, result

    def _check_not_all(
        self, skipped: list[Skipped], finite: int, what: str = 'class scores', done: bool = False
    ) -> None:
        """Refuse a model of which no video has finite scores, as soon as that is clear."""
        broken = [one.video for one in skipped if one.non_finite]
        if broken and not finite and (done or len(broken) >= EARLY):
            total = len(broken) if done else None
            raise NonFiniteError(about_scores(broken, total, self.precision, what))

    def check_features(self, out: str, layers: Sequence[int] | None) -> None:
        """Refuse features that there are not, before any video is read.

        Raises:
            ValueError: ``out`` is unknown, or a layer is not there.
        """
        feature_maps.check(out, layers, len(self.model.backbone.blocks))

    def origin(self) -> dict[str, Any]:
        """Say how this classifier sees videos, as plain values for a manifest."""
        return {
            'protocol': self.recipe.protocol,
            'fusion': self.fusion,
            'pipeline': self.recipe.pipeline,
            'versions': {'mmtimesformer': mmtimesformer.__version__, 'torch': torch.__version__},
        }

    def clips(self, video: Any, fps: float | None = None) -> Tensor:
        """Return what the model sees of one video: its views, normalised, on the model's device.

        Shape:
            - clips: ``views c t H W``
        """
        (given,) = videos_of(video)
        return self._normalised([self._open(given, fps)])[0]

    def _open(self, given: Given, fps: float | None) -> Data:
        if given.frames is not None:
            return self.views.of_array(given.frames, fps)
        assert given.path is not None
        check_exists(given.path, given.name)
        return self.views.of_file(given.path)

    def _each(
        self,
        video: Any,
        run: Callable[[list[Data]], list[np.ndarray]],
        fps: float | None,
        batch_size: int,
        progress: bool,
    ) -> Iterator[tuple[Given, Any]]:
        """Open videos, run them in batches, and give each with its result, in order."""
        many, videos = is_many(video), videos_of(video)
        waiting: list[tuple[Given, Data | Skipped]] = []
        shown = _watch(videos, len(videos), 'videos', progress and many)
        for number, given in enumerate(shown, 1):
            try:
                waiting.append((given, self._open(given, fps)))
            except (ImportError, MemoryError):
                raise
            except Exception as error:  # a reader has a class for each way to say no
                if not many:
                    raise ValueError(error_message(error, given.path, given.name)) from error
                reason = short_reason(error, given.path, given.name)
                waiting.append((given, Skipped(given.name, reason)))
            ready = sum(not isinstance(data, Skipped) for _, data in waiting)
            if ready >= self._limited(batch_size) or number == len(videos):
                yield from self._run(waiting, run)
                waiting = []

    @staticmethod
    def _run(
        waiting: list[tuple[Given, Data | Skipped]],
        run: Callable[[list[Data]], list[np.ndarray]],
    ) -> Iterator[tuple[Given, Any]]:
        """Run a batch; videos whose views have another shape go into one of their own."""
        data = {i: one for i, (_, one) in enumerate(waiting) if not isinstance(one, Skipped)}
        results: dict[int, Any] = {}
        shapes = {tuple(one['inputs'].shape) for one in data.values()}
        for shape in sorted(shapes):
            numbers = [i for i, one in data.items() if tuple(one['inputs'].shape) == shape]
            found = run([data[i] for i in numbers])
            results.update(zip(numbers, found, strict=True))
        for i, (given, one) in enumerate(waiting):
            yield given, results.get(i, one)

    def _scores(self, batch: list[Data]) -> list[np.ndarray]:
        """Return the score of each class, as a test does."""
        with torch.inference_mode(), arithmetic(self.precision, self.device):
            samples = self.model.test_step(_collate(batch))
        scores = [scores_of(sample).float() for sample in samples]
        if self.model.cls_head.average_clips is None:  # views are kept apart
            scores = [one.reshape(-1, self.num_classes).softmax(1).mean(0) for one in scores]
        return [one.cpu().numpy() for one in scores]

    def _normalised(self, batch: list[Data]) -> Tensor:
        inputs: Tensor = self.model.data_preprocessor(_collate(batch), False)['inputs']
        return inputs

    def _best(self, name: str, scores: np.ndarray, topk: int, threshold: float) -> Prediction:
        return best_of(name, scores, self.classes, topk, self.fusion, threshold)

    def _limited(self, batch_size: int) -> int:
        """MMAction2 gives a model that sees its views in parts one video at a time."""
        in_parts = (getattr(self.model, 'test_cfg', None) or {}).get('max_testing_views')
        return 1 if in_parts else batch_size

    def _need_classifier(self) -> None:
        if self._has_classifier:
            return
        has = self._source_classes
        why = f'has a classifier of {has} classes' if has else 'has no classifier of videos'
        raise ValueError(
            f'checkpoint {self.checkpoint} {why}, {self.recipe.name} wants {self.num_classes}, so '
            'labels would mean nothing; give the config that the checkpoint was trained with '
            '(features need none)'
        )

    def _name_classes(self, given: Any, metadata: ModelMetadata) -> list[str] | None:
        """Find the names: given, in the checkpoint, or in the config's data set."""
        if given is not None:
            names = read_classes(given)
            if len(names) != self.num_classes:
                raise ValueError(
                    f'there are {len(names)} class names and the model has {self.num_classes} '
                    'classes; correct classes (--classes)'
                )
            return names
        stored = self._dataset_meta if isinstance(self._dataset_meta, dict) else {}
        told = self.recipe.classes
        if isinstance(told, str) and (self.given_config is None or not Path(told).is_file()):
            told = None  # a file that is not here, or that only a checkpoint names
        for source in (stored.get('classes'), metadata.classes, told):
            if source and (isinstance(source, list | tuple) or source is told):
                names = read_classes(source)
                if len(names) == self.num_classes:
                    return names
                warnings.warn(
                    f'there are {len(names)} class names and the model has {self.num_classes} '
                    'classes: classes are numbers, not names',
                    stacklevel=3,
                )
        return None


def _check_there(checkpoint: str | os.PathLike[str]) -> str | os.PathLike[str]:
    require_file(checkpoint, 'checkpoint', 'correct the path')
    return checkpoint


def _read_recipe(config: Any) -> InferenceConfig:
    if isinstance(config, Config):
        return inference_config_of(config.to_dict(), str(config.filename or 'the config'))
    cfg = read_config(str(config))
    return inference_config_of(cfg.to_dict(), f'config {Path(cfg.filename).name}')


def _to_build(recipe: InferenceConfig) -> dict[str, Any]:
    """Return the model without where a training starts from: the checkpoint has all weights.

    The head of a multi-label model fuses views by sigmoid.
    """
    model = recipe.model
    backbone = {**model.get('backbone', {})}
    backbone.pop('init_cfg', None)
    if 'pretrained' in backbone:
        backbone['pretrained'] = None
    built = {**model, 'backbone': backbone}
    if model.get('cls_head'):
        built['cls_head'] = to_build(model['cls_head'], recipe.multi_label)
    return built


def _check_device(device: str | torch.device | None) -> torch.device:
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


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < float('inf'):
            raise ValueError(f'{name}={value} is not positive and finite; give another')


def _check_share(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value <= 1:
            raise ValueError(f'{name}={value} is not a probability; give a number from 0 to 1')


def _collate(batch: list[Data]) -> dict[str, Any]:
    return {key: [one[key] for one in batch] for key in ('inputs', 'data_samples')}


def _watch(items: Iterable[Any], total: int, what: str, progress: bool) -> Iterable[Any]:
    """Show a bar on a terminal's standard error; standard output stays for results."""
    if not progress:
        return items
    console = Console(stderr=True)
    if not console.is_terminal:
        return items
    return track(items, what, total=total, console=console)
