"""Video data set that tolerates corrupt videos and reports each of them.

MMAction2's ``VideoDataset`` ends the run at the first video that cannot be read. Here another video
takes its place in training; in validation and testing it stays, and counts as wrong.

A folder of videos that disappears in the midst of a run is waited for, see
:mod:`mmtimesformer.datasets.video_io.local_folder`.

Samples carry the error to :class:`mmtimesformer.engine.UnreadableVideosHook`, which logs and lists
each unreadable video, and stops a training that meets too many.
"""
# ruff: noqa: NPY002  (the global state is what is seeded)

import logging
import os
import random
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmaction.datasets import VideoDataset as MMAction2VideoDataset
from mmaction.structures import ActionDataSample
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from mmengine.structures import LabelData
from torch.utils.data import get_worker_info

from mmtimesformer.compat.data_samples import is_regression, nan_like, wrong_scores
from mmtimesformer.datasets.video_io.errors import is_of_reader, reason_of
from mmtimesformer.datasets.video_io.local_folder import LocalFolder
from mmtimesformer.datasets.video_io.safe_open import check_for_other_reader
from mmtimesformer.fileio.storage_error import PATIENCE
from mmtimesformer.fileio.targets import parse_targets
from mmtimesformer.registry import DATASETS
from mmtimesformer.terminal import safe_text

OTHER_READERS = {'DecordInit', 'PyAVInit', 'OpenCVInit'}  # of MMAction2
TRIES = 10  # so many videos, then the data set itself must be wrong


@DATASETS.register_module()
class VideoDataset(MMAction2VideoDataset):
    """MMAction2's ``VideoDataset`` that tolerates videos that cannot be read.

    It takes the same arguments, ``patience`` and ``num_targets``. Errors of a reader are caught,
    and no others: a transform that fails is a bug to be seen.

    In training the other video is drawn by NumPy's global state and the number of the bad one.
    Where that state is seeded for each sample, as :class:`mmtimesformer.engine.ResumableEpochLoop`
    does, a run that is resumed draws it again. Its sample has ``replaces``, a list with ``file``,
    ``reason`` and ``worker`` (a data-loading process, -1 for none) of each video that was tried
    before it.

    In testing the sample of a bad video is a :class:`FailedSample`: black frames, of the shape that
    another video gets by the same pipeline.

    Args:
        args: As in MMAction2's data set, first ``ann_file`` and ``pipeline``.
        patience: Seconds for which the folder of the videos may be gone before that is an error.
        num_targets: Numbers after each path of the list, for a regression; ``None`` for classes.
        kwargs: As in MMAction2's data set, which refuses unknown ones.

    Attributes:
        has_listener: Whether a hook reads the metadata on corrupt videos; else each is
            logged here, each time.

    Raises:
        StorageError: The folder of the videos is gone for longer than ``patience``.
        ValueError: Ten videos, or all there are, cannot be read one after the other; or a line of
            a regression has other than ``num_targets`` finite numbers.
    """

    has_listener = False
    file_keys: tuple[str, ...] = ('filename',)  # keys of a sample's info that locate it

    folder: LocalFolder | None = None

    def __init__(
        self,
        *args: Any,
        patience: float = PATIENCE,
        num_targets: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.patience = patience
        self.num_targets = num_targets
        if num_targets is not None and kwargs.get('multi_class'):
            raise ValueError(
                f'num_targets={num_targets} is for numbers and multi_class=True for classes; '
                'remove one of the two'
            )
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Read the annotation file, and remember whether the folder of the videos is there."""
        if self._fully_initialized:
            return
        super().full_init()
        if self.num_targets is not None and not isinstance(self.get_data_info(0)['label'], list):
            raise ValueError(
                f'{type(self).__name__} cannot read numbers (num_targets={self.num_targets}); set '
                "type='mmtimesformer.VideoDataset' of the data set"
            )
        self.folder = self.local_folder()

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list; with ``num_targets`` numbers follow each path."""
        if self.num_targets is None:
            videos: list[dict[str, Any]] = super().load_data_list()
            return videos
        folder = self.data_prefix.get('video') or ''
        lines = list_from_file(self.ann_file)
        return [
            {'filename': os.path.join(folder, name), 'label': numbers}  # noqa: PTH118 (addresses)
            for name, numbers in parse_targets(
                lines, self.ann_file, self.num_targets, self.delimiter
            )
        ]

    def local_folder(self) -> LocalFolder | None:
        """Return the folder that all videos lie in; ``None`` if they are not on a disk."""
        folder = str((self.data_prefix or {}).get('video') or '')
        if not folder and len(self):
            some = np.linspace(0, len(self) - 1, min(len(self), 64)).astype(int).tolist()
            folders = {str(Path(self.get_data_info(i)['filename']).parent) for i in some}
            if len({one.startswith(os.sep) for one in folders}) == 1:
                folder = os.path.commonpath(folders)
        return None if '://' in folder else LocalFolder(folder, self.patience)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the classes of a video; none for a video without a label.

        MMEngine's ``ClassBalancedDataset`` and our ``ClassBalancedSampler`` call it.
        """
        if self.num_targets is not None:
            raise TypeError(
                f'num_targets={self.num_targets}: videos have numbers and no classes, so they '
                "cannot be balanced by class; set train_dataloader.sampler.type='DefaultSampler'"
            )
        label = self.get_data_info(idx)['label']
        if self.multi_class:
            return [int(one) for one in torch.nonzero(label)]
        return [label] if label >= 0 else []

    def prepare_data(self, idx: int) -> Any:
        """Return a sample; that of another video, or a failed one, if this cannot be read."""
        state = _random_state()
        while True:
            try:
                return self._prepare(idx)
            except _FolderLostError as lost:  # noqa: PERF203 (once, mostly)
                assert self.folder is not None
                self.folder.wait(str(lost))
                _set_random_state(state)

    def _prepare(self, idx: int) -> Any:
        info = self.get_data_info(idx)
        filename = str(info['filename'])
        try:
            return self._named(self._load(info, filename), filename)
        except Exception as error:
            if not is_of_reader(error, info['filename']):
                raise
            failed = [_complaint(info['filename'], error)]
        for other in self._others(idx):
            info = self.get_data_info(other)
            filename = info['filename']
            if self.test_mode:
                file = {key: info[key] for key in self.file_keys}
                info = {**self.get_data_info(idx), **file}
            try:
                sample = self._load(info, str(filename))
            except Exception as error:
                if not is_of_reader(error, filename):
                    raise
                failed.append(_complaint(filename, error))
                continue
            if sample is None:
                continue
            if not self.has_listener:
                message = f'{failed[0]["file"]} cannot be read: {failed[0]["reason"]}'
                print_log(safe_text(message), logger='current', level=logging.WARNING)
            if self.test_mode:
                return _as_failed(self._named(sample, str(filename)), failed[0])
            return _as_replacing(sample, failed)
        raise ValueError(
            f'{len(failed)} videos one after the other cannot be read, the first is '
            f'{failed[0]["file"]}: {failed[0]["reason"]}; correct ann_file or data_prefix of this '
            'dataset, or find the bad ones with tools/data/check_videos.py'
        )

    def _load(self, info: dict[str, Any], filename: str) -> Any:
        """Run the pipeline on one video; see whether it is the folder that cannot be read."""
        try:
            sample = self.load(info)
        except Exception as error:
            if self.folder and is_of_reader(error, filename) and self.folder.is_lost(filename):
                raise _FolderLostError(filename) from error
            raise
        if self.folder is not None:
            self.folder.note_read(filename)
        return sample

    def load(self, info: dict[str, Any]) -> Any:
        """Run the pipeline on one video."""
        if not self._opens_safely:
            check_for_other_reader(info['filename'])
        return self.pipeline(info)

    @cached_property
    def _opens_safely(self) -> bool:
        """Whether the pipeline opens videos by our own reader, which checks them itself."""
        names = {type(step).__name__ for step in self.pipeline.transforms}
        return not names & OTHER_READERS

    def _named(self, sample: Any, filename: str) -> Any:
        """Add the file of a tested video to its sample, by which an error or a report names it."""
        packed = sample.get('data_samples') if self.test_mode and isinstance(sample, dict) else None
        if packed is not None and 'filename' not in packed:
            packed.set_metainfo({'filename': filename})
        if packed is not None and self.num_targets is not None:
            packed.set_metainfo({'num_targets': self.num_targets})
        return sample

    def _others(self, index: int) -> Iterator[int]:
        """Draw other videos: in training at random, in testing always the same."""
        seed = [index] if self.test_mode else [index, np.random.randint(2**31)]
        others = len(self) - 1
        drawn = np.random.default_rng(seed).choice(others, min(others, TRIES - 1), replace=False)
        return (int(other) + (other >= index) for other in drawn)


class _FolderLostError(Exception):
    """The folder of the videos is gone; its argument is the video that was wanted."""


def _random_state() -> tuple[Any, Any, torch.Tensor]:
    """Return the state of what transforms draw from, for a video that is read a second time."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_random_state(state: tuple[Any, Any, torch.Tensor]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


class FailedSample(ActionDataSample):
    """The sample of a video that cannot be read: every prediction for it counts as wrong.

    Scores that are written into it are replaced: lowest for the true classes and the same for all
    others, so that it is wrong in every metric (top 5 among five classes excepted, which cannot be
    wrong). Numbers of a regression become NaN, which ``RegressionMetric`` counts and leaves out.
    ``failed`` is why it cannot be read, and ``filename`` which video it is; both go into a dump of
    the results.
    """

    def set_field(self, value: Any, name: str, dtype: Any = None, field_type: str = 'data') -> None:
        """Set a field; see the class for those with predictions."""
        truth = self.get('gt_labels', self.get('gt_label'))
        kind = name.strip('_')
        if truth is not None and kind in _PREDICTIONS:
            item = truth.item if isinstance(truth, LabelData) else truth
            if isinstance(value, LabelData):
                value = LabelData(**{k: self._wrong(kind, v, item) for k, v in value.items()})
            else:
                value = self._wrong(kind, value, item)
        super().set_field(value, name, dtype, field_type)

    def _wrong(self, kind: str, value: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        if is_regression(self):
            return nan_like(value) if value.is_floating_point() else value
        if kind.startswith('pred_label'):
            scores = self.get('pred_scores', self.get('pred_score'))
            scores = scores.item if isinstance(scores, LabelData) else scores
            return value if scores is None else scores.argmax(-1, keepdim=True)
        return wrong_scores(value, truth)


# In the words of MMAction2 1.1.0 and 1.2.0, and of engine/view_scores.py
_PREDICTIONS = {'pred_scores', 'pred_labels', 'pred_score', 'pred_label', 'view_scores'}


def _complaint(filename: str, error: Exception) -> dict[str, Any]:
    info = get_worker_info()
    worker = info.id if info else -1
    return {'file': str(filename), 'reason': reason_of(error), 'worker': worker}


def _as_replacing(sample: Any, failed: list[dict[str, Any]]) -> Any:
    for clip in sample if isinstance(sample, list) else [sample]:  # several clips of a video
        clip['data_samples'].set_metainfo({'replaces': failed})
    return sample


def _as_failed(sample: Any, failed: dict[str, Any]) -> Any:
    packed = sample['data_samples']
    marked = FailedSample(metainfo={**packed.metainfo, 'filename': failed['file']})
    marked.set_metainfo({'failed': failed['reason'], 'worker': failed['worker']})
    for name, value in packed.items():
        setattr(marked, name, value)
    return {**sample, 'inputs': torch.zeros_like(sample['inputs']), 'data_samples': marked}
