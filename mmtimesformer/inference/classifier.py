"""VideoClassifier: labels, features and timelines of videos, by any trained TimeSformer."""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from mmtimesformer.checkpoints.download import model_address
from mmtimesformer.checkpoints.load_report import LoadReport
from mmtimesformer.checkpoints.model_card import ModelCard
from mmtimesformer.compat.data_samples import scores_of
from mmtimesformer.config.speed import EXACT, Speed
from mmtimesformer.heads import FUSIONS
from mmtimesformer.inference.batches import (
    Data,
    Result,
    Run,
    check_positive,
    check_probability,
    collate,
    collect_predictions,
    run_in_batches,
    skip_non_finite,
    watch,
)
from mmtimesformer.inference.features import check_features, extract
from mmtimesformer.inference.inputs import is_many, open_video, videos_of
from mmtimesformer.inference.loading import check_device, class_names, load_recognizer
from mmtimesformer.inference.model_source import model_source
from mmtimesformer.inference.prediction import THRESHOLD, Prediction, Skipped, best_of
from mmtimesformer.inference.publishing import Upload, save_folder, upload
from mmtimesformer.inference.sliding_window import Moment, Timeline, Windows, run_windows
from mmtimesformer.inference.speed import prepare
from mmtimesformer.models.cpu_matmul import float32_by_onednn
from mmtimesformer.non_finite import NonFiniteError, about_scores, is_finite
from mmtimesformer.version import __version__


class VideoClassifier:
    """Labels, features and timelines of videos.

    Views and their fusion are those of the config's test, so scores are those of ``tools/test.py``.

    With a loss of sigmoids or ``multi_class=True``, the score of a class is the mean of its sigmoid
    over views, also for ``average_clips='prob'``.

    Args:
        config: A file, a shipped config's name (alone: with its published weights), a ``Config``;
            or a checkpoint with its config (parsed, never executed) or its preprocessing, see
            :mod:`mmtimesformer.inference.model_source`.
        checkpoint: Of any readable format: a path, a folder, ``https://…``, ``hf://owner/name``.
            Config and checkpoint may be in any order.
        device: Such as ``'cpu'`` or ``'cuda:1'``; if not given, the first GPU if there is one.
        classes: A list of names, or a file with a name a line; if not given, those of the
            checkpoint, else of the config's data set (shipped ones if their file is not there, see
            :mod:`mmtimesformer.class_names`), else numbers.
        speed: ``'exact'``, or ``'compiled'``, ``'bf16'``, ``'int8'``, ``'merged:r'``, or several
            joined by ``+``, see :mod:`mmtimesformer.config.speed`.
        calibrated: Divide logits by the temperature in the checkpoint (``tools/calibrate.py``).
        preprocessing: Whose mean, std, sizes and frames are used where those that the checkpoint
            states and the config's differ: ``'checkpoint'`` (with a warning) or ``'config'``.

    Attributes:
        model: The recognizer, in evaluation mode.
        views: The test pipeline, from a video to its views.
        classes: The names, or ``None``.
        inference_config: What was read from the config, or from the checkpoint.
        metadata: What the checkpoint states besides its weights.
        speed: The switch, as text.

    Raises:
        FileNotFoundError: A file does not exist.
        ValueError: The checkpoint does not match the config, or is not enough by itself.

    Example:
        >>> print(VideoClassifier('epoch_28.pth')('video.mp4', topk=5))
    """

    def __init__(
        self,
        config: str | os.PathLike[str] | Config | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        classes: str | os.PathLike[str] | Sequence[str] | None = None,
        speed: str = EXACT,
        calibrated: bool = False,
        preprocessing: str = 'checkpoint',
    ) -> None:
        how = Speed.parse(speed)
        self.speed = str(how)
        self.device = check_device(device)
        source = model_source(config, checkpoint)
        config = source.config
        self.given_config = None if config is None else str(getattr(config, 'filename', config))
        self._loaded = loaded = load_recognizer(
            config, source.checkpoint, calibrated, preprocessing
        )
        self.checkpoint = loaded.checkpoint
        self.model, self.views, self.inference_config = loaded.model, loaded.views, loaded.config
        self.load_report, self.metadata = loaded.load_report, loaded.metadata
        self.model.to(self.device).eval()
        prepare(self.model, how, self.device)
        self.classes = class_names(classes, loaded.class_sources, self.num_classes)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **options: Any) -> 'VideoClassifier':
        """Load a model of the Hugging Face Hub, or a folder that transformers or this class saved.

        Weights, class names, mean, std, sizes and frames are those of its files. Where these do not
        state which frames, they follow from the data set, with one warning (docs/huggingface.md).

        Args:
            name: A folder, ``owner/name``, or ``hf://owner/name@revision``.
            options: Other arguments of the class: ``device``, ``classes``, ``speed``,
                ``calibrated``.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It cannot be downloaded, or one of its files has a value that is not known.

        Example:
            >>> model = VideoClassifier.from_pretrained('facebook/timesformer-base-finetuned-k400')
        """
        return cls(None, model_address(name), **options)

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        data_set: str | None = None,
        scores: Mapping[str, float] | None = None,
        scores_source: str | None = None,
        licence: str | None = None,
        base_model: str | None = None,
    ) -> LoadReport:
        """Write a folder that transformers and :meth:`from_pretrained` load.

        Its files are ``config.json``, ``preprocessor_config.json``, ``model.safetensors``, and
        ``README.md``, the model card. With :meth:`from_pretrained` scores are the same, bit for
        bit. transformers takes one centre crop, and its pipeline other frames.

        Args:
            folder: The folder; it need not exist.
            data_set: Of the training, for the model card.
            scores: Name of each metric → percent.
            scores_source: Where the scores come from; needed with ``scores``.
            licence: The hub's identifier, such as ``'cc-by-nc-4.0'``.
            base_model: The repository that the training started from.

        Raises:
            CheckpointError: transformers' model cannot hold the weights.
            ValueError: The folder is the checkpoint, or has files that contradict the new ones.
        """
        card = ModelCard(data_set, [], scores or {}, scores_source, licence, base_model)
        return save_folder(self, folder, card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        dry_run: bool = False,
        commit_message: str = 'Upload a TimeSformer',
        **card: Any,
    ) -> Upload:
        """Upload the files of :meth:`save_pretrained` to the Hugging Face Hub.

        Args:
            repo_id: ``owner/name``; made if it does not exist.
            private: Of a new repository.
            revision: Branch, made if it does not exist; ``main`` if not given.
            dry_run: Upload nothing; return what would be uploaded.
            commit_message: Of the commit.
            card: What the model card states, as in :meth:`save_pretrained`.

        Raises:
            ValueError: The upload failed.
        """
        made = ModelCard(**card)
        return upload(self, repo_id, made, private, revision, dry_run, commit_message)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.model.cls_head.num_classes)

    @property
    def temperature(self) -> float:
        """What logits are divided by; 1 if scores are not calibrated."""
        return float(getattr(self.model.cls_head, 'temperature', 1.0))

    @property
    def fusion(self) -> str:
        """How the scores of a video's views are fused."""
        return FUSIONS[self.model.cls_head.average_clips or 'prob']

    @property
    def is_multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.inference_config.multi_label or self.model.cls_head.average_clips == 'sigmoid'

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
            video: A file, frames (a folder, or ``t H W 3`` of uint8, RGB; other channels as the
                config's test pipeline opens them), a list or folder of it.
            topk: How many of the best classes to return.
            fps: Frames per second of arrays and of folders of frames (30 for these if not given).
            batch_size: Videos in a batch.
            progress: Show a progress bar on the terminal for many videos.
            threshold: For a multi-label model: the least probability of a label.

        Returns:
            A :class:`Prediction`; for a list or a folder :class:`Predictions`, which list files
            without finite scores in ``skipped``.

        Raises:
            FileNotFoundError: The file or folder does not exist.
            NonFiniteError: Scores of the only video, of the first ``EARLY``, or of all are NaN.
            ValueError: The one video, or every one of many, cannot be read.
        """
        self._loaded.check_classifier()
        check_positive(topk=topk, batch_size=batch_size, fps=fps)
        check_probability(threshold=threshold)
        results = self._each(video, self._scores, fps, batch_size, progress)
        predictions = collect_predictions(
            results, lambda name, scores: self._best(name, scores, topk, threshold), self.speed
        )
        return predictions if is_many(video) else predictions[0]

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
        fps: float | None = None,
    ) -> Timeline:
        """Classify a long video in sliding windows.

        Each window is classified as a separate video. Memory does not depend on the length.
        A ``window`` has so many seconds, best a little more than a clip, and starts ``stride``
        seconds after the one before it, half a window if not given. A batch has ``batch_size``
        windows. The other arguments are those of :meth:`__call__`.

        Raises:
            FileNotFoundError: The file does not exist.
            NonFiniteError: The scores of a window are NaN or infinite.
            ValueError: It cannot be read.
        """
        self._loaded.check_classifier()
        stride = window / 2 if stride is None else stride
        check_positive(window=window, stride=stride, topk=topk, batch_size=batch_size, fps=fps)
        check_probability(threshold=threshold)
        windows = Windows(open_video(video, fps), self.views, window, stride)
        timeline = Timeline(str(video), window, stride)
        shown = watch(windows, len(windows), str(video), progress)
        for one, scores in run_windows(shown, self._scores, self._limited(batch_size)):
            if not is_finite(scores):
                why = about_scores([str(video)], 1, self.speed)
                raise NonFiniteError(f'from {one.start:.1f} to {one.end:.1f} seconds {why}')
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
        """Return the features of a video from the backbone, before the classifier.

        Args:
            video: As in :meth:`__call__`.
            out: ``'cls'``, ``'patch_mean'``, ``'frames'`` or ``'tokens'``, see
                :mod:`mmtimesformer.inference.features`.
            layers: Hidden states: 0 is the embedded video, -1 the last. A list adds a first axis.
            fps: As in :meth:`__call__`.
            batch_size: As in :meth:`__call__`.
            progress: As in :meth:`__call__`.

        Returns:
            An array of float32; for a list or a folder a dict by name, without unreadable files.

        Raises:
            NonFiniteError: The features of a video are NaN or infinite.
        """
        found: dict[str, np.ndarray] = {}
        for given, result in self.each_features(video, out, layers, fps, batch_size, progress):
            if isinstance(result, Skipped) and result.non_finite:
                raise NonFiniteError(about_scores([given.name], 1, self.speed, 'features'))
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
    ) -> Iterator[Result]:
        """Yield the features of many videos one by one, see :meth:`features`."""
        self.check_features(out, [layers] if isinstance(layers, int) else layers)
        check_positive(batch_size=batch_size, fps=fps)

        def run(batch: list[Data]) -> list[np.ndarray]:
            with torch.inference_mode(), float32_by_onednn():
                return extract(self.model.backbone, self._normalised(batch), out, layers)

        results = self._each(video, run, fps, batch_size, progress)
        return skip_non_finite(results, self.speed, 'features')

    def check_features(self, out: str, layers: Sequence[int] | None) -> None:
        """Refuse an unknown ``out`` or layer of :meth:`features`, before any video is read."""
        check_features(out, layers, len(self.model.backbone.blocks))

    def need_exact(self, what: str) -> None:
        """Refuse what needs the exact model with its own weights.

        Raises:
            ValueError: The classifier has another speed.
        """
        if self.speed != EXACT:
            raise ValueError(
                f'{what}: the model of this classifier was changed for speed={self.speed!r}; make '
                f'one of speed={EXACT!r}'
            )

    def origin(self) -> dict[str, Any]:
        """Return protocol, pipeline and versions, as plain values for a manifest."""
        return {
            'protocol': self.inference_config.protocol,
            'fusion': self.fusion,
            'speed': self.speed,
            'pipeline': self.inference_config.pipeline,
            'versions': {'mmtimesformer': __version__, 'torch': torch.__version__},
        }

    def clips(self, video: Any, fps: float | None = None) -> Tensor:
        """Return the views of one video, normalised, on the model's device.

        Shape:
            - clips: ``views c t H W``
        """
        (given,) = videos_of(video, self.views.form)
        return self._normalised([self.views.of(given, fps)])[0]

    def _each(
        self, video: Any, run: Run, fps: float | None, batch_size: int, progress: bool
    ) -> Iterator[Result]:
        size = self._limited(batch_size)
        return run_in_batches(
            video, lambda one: self.views.of(one, fps), run, size, progress, self.views.form
        )

    def _scores(self, batch: list[Data]) -> list[np.ndarray]:
        """Return the scores of each video, as a test does."""
        with torch.inference_mode(), float32_by_onednn():
            samples = self.model.test_step(collate(batch))
        scores = [scores_of(sample).float() for sample in samples]
        if self.model.cls_head.average_clips is None:  # views are kept apart
            scores = [one.reshape(-1, self.num_classes).softmax(1).mean(0) for one in scores]
        return [one.cpu().numpy() for one in scores]

    def _normalised(self, batch: list[Data]) -> Tensor:
        inputs: Tensor = self.model.data_preprocessor(collate(batch), False)['inputs']
        return inputs

    def _best(self, name: str, scores: np.ndarray, topk: int, threshold: float) -> Prediction:
        return best_of(name, scores, self.classes, topk, self.fusion, threshold)

    def _limited(self, batch_size: int) -> int:
        """One video at a time where ``max_testing_views`` is set, as in MMAction2."""
        test_cfg = self.inference_config.model.get('test_cfg') or {}
        return 1 if test_cfg.get('max_testing_views') else batch_size
