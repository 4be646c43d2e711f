"""Videos that cannot be read are logged once, listed, counted, and too many of them end a training.

The news comes with the samples of :class:`mmtimesformer.datasets.video_dataset.VideoDataset`.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.hooks import Hook

from mmtimesformer.fileio.safe_text import parse_json
from mmtimesformer.registry import HOOKS
from mmtimesformer.terminal import safe_text

LIST = 'bad_videos.jsonl'  # in the work_dir
LARGEST_LIST = 64 << 20  # bytes, of 300,000 bad videos
LONGEST_LINE = 64 << 10


@HOOKS.register_module()
class UnreadableVideosHook(Hook):
    """Tell of each bad video once, list it in ``work_dir/bad_videos.jsonl``, and know a limit.

    A line of the list is a JSON object: ``file``, ``reason``, when it was first met (``stage``:
    train, val or test; ``epoch`` and ``iter``, both counted from 1), and by whom (``rank``, the
    process of the run, and ``worker``, its data-loading process, -1 for itself). A training that
    starts from the beginning begins a new list; one that is resumed goes on with it.

    The limit is on different files, not on how often they are met: a share of the whole data set.
    So it does not depend on chance, on the number of epochs or on that of processes. A small data
    set is given a few bad ones whatever their share: one of ten is no reason to stop.

    Args:
        max_share: The share of the training videos that may be bad, from 0 to 1.
        max_few: So many may be bad in any case; 0 for none.

    Raises:
        ValueError: An argument is out of range.
    """

    priority = 'NORMAL'

    def __init__(self, max_share: float = 0.01, max_few: int = 5) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(
                f'max_share={max_share} is no share; set default_hooks.bad_videos.max_share to a '
                'number from 0 to 1'
            )
        if max_few < 0:
            raise ValueError(
                f'max_few={max_few} is negative; set default_hooks.bad_videos.max_few to 0 or more'
            )
        self.max_share = max_share
        self.max_few = max_few
        self.list = BadVideoList(Path(LIST))
        self.failed: set[str] = set()  # in this validation or test

    def before_run(self, runner: Any) -> None:
        """Know where to list, and say to the data sets that somebody listens."""
        self.list = BadVideoList(Path(runner.work_dir) / LIST)
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            for dataset in _datasets(getattr(getattr(loop, 'dataloader', None), 'dataset', None)):
                dataset.has_listener = True

    def before_train(self, runner: Any) -> None:
        """Begin a new list, unless the training goes on from a checkpoint."""
        if runner.iter == 0 and is_main_process():
            self.list.path.unlink(missing_ok=True)
        barrier()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Read the news that came with a batch.

        Raises:
            ValueError: There are too many bad videos.
        """
        bad = [video for sample in _samples(data_batch) for video in sample.get('replaces', ())]
        if bad:
            self._tell(runner, 'train', bad, 'another video takes its place')
            self._check(runner)

    def before_val_epoch(self, runner: Any) -> None:
        """Count from none."""
        self.failed.clear()

    before_test_epoch = before_val_epoch

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Read the news from the samples that a validation gave out."""
        self._tell_failed(runner, 'val', outputs)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Read the news from the samples that a test gave out."""
        self._tell_failed(runner, 'test', outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Say how many videos are wrong because they could not be read."""
        self._sum_up(runner, len(runner.val_dataloader.dataset))

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Say how many videos are wrong because they could not be read."""
        self._sum_up(runner, len(runner.test_dataloader.dataset))

    def _tell_failed(self, runner: Any, stage: str, outputs: Any) -> None:
        bad = [
            {'file': sample.filename, 'reason': sample.failed, 'worker': sample.get('worker', -1)}
            for sample in outputs or ()
            if hasattr(sample, 'get') and sample.get('failed')
        ]
        if bad:
            self.failed.update(video['file'] for video in bad)
            self._tell(runner, stage, bad, 'it counts as wrong')

    def _tell(
        self, runner: Any, stage: str, videos: Iterable[dict[str, Any]], consequence: str
    ) -> None:
        """Log and list those that are new."""
        when = {'stage': stage, 'epoch': runner.epoch + 1, 'iter': runner.iter + 1}
        found = [
            {'file': video['file'], 'reason': video['reason'], **when, 'rank': runner.rank}
            | {'worker': video['worker']}
            for video in videos
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

    def _check(self, runner: Any) -> None:
        total = len(runner.train_dataloader.dataset)
        bad = sum(video.get('stage') == 'train' for video in self.list.videos.values())
        allowed = max(self.max_few, int(self.max_share * total))
        if bad > allowed:
            raise ValueError(
                f'{bad} of {total:,} training videos cannot be read, and {allowed} may be bad '
                f'(max_share={self.max_share:g}); {self.list.path} says which and why. Repair '
                'them and remove that list, or leave them out (tools/data/check_videos.py finds '
                'all and writes an annotation file without them), or allow more: '
                'default_hooks.bad_videos.max_share'
            )

    def _sum_up(self, runner: Any, total: int) -> None:
        failed = set().union(*all_gather_object(self.failed))
        if failed:
            runner.logger.warning(
                f'{len(failed)} of {total:,} videos could not be read, and count as wrong; '
                f'{self.list.path} says which and why.'
            )


class BadVideoList:
    """A file of JSON lines, to which several processes add, each video once.

    Args:
        path: The file.

    Attributes:
        videos: By file, what is listed, as far as it has been read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.videos: dict[str, dict[str, Any]] = {}

    def add(self, videos: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """List videos that are not listed yet.

        Returns:
            Those that were not.
        """
        wanted = {video['file']: video for video in videos}
        if wanted.keys() <= self.videos.keys():
            return []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and not self.path.is_file():  # a pipe would be waited for
            raise OSError('it is not a file')
        # Unbuffered: what is added goes out in one write, behind all that is there.
        with self.path.open('ab+', buffering=0) as file, _alone_with(file):
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
                lines = '\n' + lines  # of a process that was killed, or of a full disk
            file.write(lines.encode())
        self.videos.update((video['file'], video) for video in new)
        return new


def _read(content: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    for line in content.splitlines():
        with suppress(ValueError):  # a line that is torn, or another's
            video = parse_json(line, LIST, LONGEST_LINE)
            if isinstance(video, dict) and isinstance(video.get('file'), str):
                yield video['file'], video


@contextmanager
def _alone_with(file: BinaryIO) -> Iterator[None]:
    """Keep other processes out, also those of other machines if their file system can."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: a line may come twice there
        yield
        return
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file lets others in


def _samples(data_batch: Any) -> Iterable[Any]:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    return samples if isinstance(samples, list) else ()


def _datasets(dataset: Any) -> Iterator[Any]:
    """Walk through wrappers to the data sets that tell of bad videos."""
    if hasattr(dataset, 'has_listener'):
        yield dataset
    for part in (getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())):
        if part is not None:
            yield from _datasets(part)
