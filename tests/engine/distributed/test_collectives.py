"""What one process saw counts in all of them: two processes that talk by gloo."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import distributed

from mmtimesformer.engine.distributed.collectives import (
    all_ranks,
    any_rank,
    broadcast_from_rank0,
    raise_on_all_ranks,
    smallest,
)
from mmtimesformer.engine.hooks.non_finite_steps import NonFiniteStepHook
from mmtimesformer.engine.hooks.unreadable_videos import UnreadableVideoList, UnreadableVideosHook

# Python 3.12 warns of forks of a process with threads; these children end at once.
pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')


def _run(work: Callable[[int], Any], rank: int, store: Path, results: Any) -> None:
    distributed.init_process_group('gloo', f'file://{store}', rank=rank, world_size=2)
    try:
        results.put((rank, work(rank)))
    finally:
        distributed.destroy_process_group()


def in_two_processes(work: Callable[[int], Any], tmp_path: Path) -> list[Any]:
    """Call ``work(rank)`` in two processes of one group; return what each returned."""
    processes = multiprocessing.get_context('fork')
    results = processes.SimpleQueue()
    both = [
        processes.Process(target=_run, args=(work, rank, tmp_path / 'store', results))
        for rank in range(2)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    return [answer for _, answer in sorted(results.get() for _ in both)]


def test_answers_are_those_of_all_processes(tmp_path: Path) -> None:
    def work(rank: int) -> list[Any]:
        first = rank == 0
        return [
            all_ranks(True), all_ranks(first), any_rank(first), any_rank(False),
            smallest(3 + rank), broadcast_from_rank0(f'of {rank}'),
        ]  # fmt: skip

    assert in_two_processes(work, tmp_path) == [[True, False, True, False, 3, 'of 0']] * 2


def test_an_error_of_one_process_is_raised_in_both(tmp_path: Path) -> None:
    def work(rank: int) -> str:
        try:
            with raise_on_all_ranks():
                if rank == 1:
                    raise OSError('the disk is full')
        except OSError as error:
            return str(error)
        return 'none'

    assert in_two_processes(work, tmp_path) == ['the disk is full'] * 2


def test_scores_that_are_not_finite_in_one_process_are_known_to_both(tmp_path: Path) -> None:
    def work(rank: int) -> bool:
        hook = NonFiniteStepHook()
        hook.bad_scores = rank == 1
        hook.after_val_epoch(SimpleNamespace())
        return hook.bad_scores

    assert in_two_processes(work, tmp_path) == [True, True]


@pytest.mark.parametrize('skipping', [0, 1])
def test_a_process_that_skips_steps_keeps_both_from_saving(tmp_path: Path, skipping: int) -> None:
    def work(rank: int) -> bool:
        hook = NonFiniteStepHook()
        hook.is_skipping = rank == skipping
        return hook.is_unsafe()

    assert in_two_processes(work, tmp_path) == [True, True]


def test_videos_that_two_processes_could_not_read_are_counted_once_each(tmp_path: Path) -> None:
    def work(rank: int) -> list[str]:
        logged: list[str] = []
        hook = UnreadableVideosHook()
        hook.list = UnreadableVideoList(tmp_path / 'bad_videos.jsonl')
        names = [('a.mp4', 'b.mp4'), ('b.mp4', 'c.mp4')][rank]
        hook.failed = dict.fromkeys(names, False)
        runner = SimpleNamespace(
            logger=SimpleNamespace(warning=logged.append),
            val_dataloader=SimpleNamespace(dataset=range(10)),
        )
        hook.after_val_epoch(runner)
        return [text.partition(' could')[0] for text in logged]

    assert in_two_processes(work, tmp_path) == [['3 of 10 videos']] * 2
