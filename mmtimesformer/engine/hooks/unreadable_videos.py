"""Log and list every video that cannot be read; stop a training that has too many of them.

The reasons come with the samples of :class:`mmtimesformer.datasets.video_dataset.VideoDataset`.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmtimesformer.compat.data_samples import is_regression
from mmtimesformer.compat.upstream import overrides
from mmtimesformer.engine.loops.resumable_loop import nested_datasets
from mmtimesformer.fileio.safe_text import parse_json
from mmtimesformer.registry import HOOKS
from mmtimesformer.terminal import safe_text

LIST = 'bad_videos.jsonl'  # in the work_dir
LARGEST_LIST = 64 << 20  # bytes, of 300,000 videos
LONGEST_LINE = 64 << 10
KEY = 'default_hooks.unreadable_videos'

Entry = dict[str, Any]  # a line of the list
Samples = Sequence[Any] | None


@HOOKS.register_module()
class UnreadableVideosHook(Hook):
    """Log each unreadable video once, list it in ``work_dir/bad_videos.jsonl``, and limit them.

    A line of the list is a JSON object: ``file``, ``reason``, where it was first met (``stage``:
    train, val or test; ``epoch`` and ``iter``, both counted from 1; ``rank``; ``worker``, -1 for
    the main process). A training from the beginning starts a new list; a resumed one appends.

    The limit counts different files, as a fraction of the data set. So it does not depend on
    chance, on the number of epochs or on that of processes. A small data set may have a few in any
    case: one of ten is no reason to stop.

    Args:
        max_fraction: The fraction of the training videos that may be unreadable, from 0 to 1.
        max_few: So many may be unreadable in any case; 0 for none.

    Raises:
        ValueError: An argument is out of range.
    """

    priority = 'NORMAL'

    def __init__(self, max_fraction: float = 0.01, max_few: int = 5) -> None:
        if not 0 <= max_fraction <= 1:
            raise ValueError(
                f'max_fraction={max_fraction} is not a fraction; set {KEY}.max_fraction to a '
                'number from 0 to 1'
            )
        if max_few < 0:
            raise ValueError(f'max_few={max_few} is negative; set {KEY}.max_few to 0 or more')
        self.max_fraction = max_fraction
        self.max_few = max_few
        self.list = UnreadableVideoList(Path(LIST))
        # In this validation or test: file, and whether numbers were to be predicted
        self.failed: dict[str, bool] = {}

    def before_run(self, runner: Runner) -> None:
        """Set the place of the list; data sets leave logging to this hook."""
        self.list = UnreadableVideoList(Path(runner.work_dir) / LIST)
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            for dataset in nested_datasets(getattr(loop, 'dataloader', None)):
                if hasattr(dataset, 'has_listener'):
                    dataset.has_listener = True

    def before_train(self, runner: Runner) -> None:
        """Start a new list, unless the training resumes."""
        if runner.iter == 0 and is_main_process():
            self.list.path.unlink(missing_ok=True)
        barrier()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Log the videos that others replace in this batch.

        Raises:
            ValueError: Too many videos are unreadable.
        """
        bad = [video for sample in _samples(data_batch) for video in sample.get('replaces', ())]
        if bad:
            self._log(runner, 'train', bad, 'another video takes its place')
            self._check(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self.failed.clear()

    before_test_epoch = before_val_epoch

    @overrides(Hook)
    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Samples = None,
        mode: str = 'train',
    ) -> None:  # fmt: skip
        """Log the unreadable videos of a batch of a validation or test."""
        samples = [
            sample
            for sample in (outputs or () if mode != 'train' else ())
            if hasattr(sample, 'get') and sample.get('failed')
        ]
        if samples:
            self.failed.update((sample.filename, is_regression(sample)) for sample in samples)
            bad = [
                {'file': one.filename, 'reason': one.failed, 'worker': one.get('worker', -1)}
                for one in samples
            ]
            consequence = 'is left out of the errors'
            if not is_regression(samples[0]):
                consequence = 'counts as wrong'
            self._log(runner, mode, bad, f'it {consequence}')

    @overrides(Hook)
    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        """Log how many videos of a validation or test could not be read."""
        if mode == 'train':
            return
        loader = runner.val_dataloader if mode == 'val' else runner.test_dataloader
        failed = {k: v for one in all_gather_object(self.failed) for k, v in one.items()}
        if failed:
            numbers = any(failed.values())
            outcome = 'are left out of the errors' if numbers else 'count as wrong'
            runner.logger.warning(
                f'{len(failed)} of {len(loader.dataset):,} videos could not be read, and '
                f'{outcome}; {self.list.path} lists them with their reasons.'
            )

    def _log(self, runner: Runner, stage: str, videos: Iterable[Entry], consequence: str) -> None:
        """Log and list the videos that are not listed yet."""
        step = {'epoch': runner.epoch + 1, 'iter': runner.iter + 1}
        when = {'stage': stage, **step, 'rank': runner.rank}
        found = [
            {'file': one['file'], 'reason': one['reason'], **when, 'worker': one['worker']}
            for one in videos
        ]
        try:
            new = self.list.add(found)
        except OSError as error:
            new = found
            runner.logger.warning(f'{self.list.path} cannot be written: {error}')
        for video in new:
            runner.logger.warning(
                f'{safe_text(video["file"])} cannot be read: {safe_text(video["reason"])}; '
                f'{consequence} ({LIST})'
            )

    def _check(self, runner: Runner) -> None:
        total = len(runner.train_dataloader.dataset)
        bad = sum(video.get('stage') == 'train' for video in self.list.videos.values())
        allowed = max(self.max_few, int(self.max_fraction * total))
        if bad > allowed:
            raise ValueError(
                f'{bad} of {total:,} training videos cannot be read, and {allowed} may be '
                f'unreadable (max_fraction={self.max_fraction:g}); {self.list.path} lists them '
                'with their reasons. Repair them and remove that list, or remove them from the '
                'annotation file (tools/data/check_videos.py writes one without them), or allow '
                f'more: {KEY}.max_fraction'
            )


class UnreadableVideoList:
    """A file of JSON lines to which several processes append, each video once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.videos: dict[str, Entry] = {}  # by file, as of the last `add`

    def add(self, videos: Iterable[Entry]) -> list[Entry]:
        """Append the videos that are not listed yet, and return them."""
        wanted = {video['file']: video for video in videos}
        if wanted.keys() <= self.videos.keys():
            return []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.is_file():  # reading a pipe would block
            raise OSError('it is not a file')
        # Unbuffered: one write appends all new lines
        with self.path.open('ab+', buffering=0) as file, _locked(file):
            file.seek(0)
            size = file.seek(0, 2)
            if size > LARGEST_LIST:
                raise OSError(f'it has {size:,} bytes, and at most {LARGEST_LIST:,} are read')
            file.seek(0)
            content = file.readall()
            self.videos.update(_read(content))
            new = [video for name, video in wanted.items() if name not in self.videos]
            lines = ''.join(json.dumps(video) + '\n' for video in new)
            if content and not content.endswith(b'\n'):
                lines = '\n' + lines  # after a kill, or on a disk that was full
            file.write(lines.encode())
        self.videos.update((video['file'], video) for video in new)
        return new


def _read(content: bytes) -> Iterator[tuple[str, Entry]]:
    for line in content.splitlines():
        with suppress(ValueError):  # an incomplete line, or one of another program
            video = parse_json(line, LIST, LONGEST_LINE)
            if isinstance(video, dict) and isinstance(video.get('file'), str):
                yield video['file'], video


@contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """Lock out other processes, also on other machines if the file system can."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: a video may be listed twice
        yield
        return
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file unlocks it


def _samples(data_batch: object) -> Sequence[Any]:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    return samples if isinstance(samples, list) else ()
