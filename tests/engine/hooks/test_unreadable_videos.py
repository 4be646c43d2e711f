"""Unreadable videos are logged and listed once by all processes; too many end a training."""

import json
import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmtimesformer.engine.hooks.unreadable_videos import UnreadableVideoList, UnreadableVideosHook


class Sample(dict):
    """A data sample: it has ``get`` and attributes."""

    __getattr__ = dict.__getitem__


def bad(*names: str) -> dict[str, Any]:
    """A batch with one sample that replaces these videos."""
    videos = [{'file': name, 'reason': 'it is empty', 'worker': 3} for name in names]
    return {'inputs': [], 'data_samples': [Sample(), Sample(replaces=videos)]}


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    """The parts of a Runner that the hook uses."""
    logged: list[str] = []
    loader = SimpleNamespace(dataset=[None] * 1000)
    return SimpleNamespace(
        work_dir=str(tmp_path), epoch=1, iter=29, rank=0,
        logged=logged, logger=SimpleNamespace(warning=logged.append),
        train_dataloader=loader, val_dataloader=loader, test_dataloader=loader,
        _train_loop=SimpleNamespace(dataloader=loader), _val_loop=None, _test_loop=None,
    )  # fmt: skip


def start(runner: Any, **options: Any) -> UnreadableVideosHook:
    hook = UnreadableVideosHook(**options)
    hook.before_run(runner)
    hook.before_train(runner)
    return hook


def listed(runner: Any) -> list[dict[str, Any]]:
    path = Path(runner.work_dir) / 'bad_videos.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_unreadable_video_is_logged_and_listed_once(runner: Any) -> None:
    hook = start(runner)
    hook.before_train_iter(runner, 0, {'inputs': [], 'data_samples': [Sample()]})
    assert runner.logged == []
    for _ in range(3):
        hook.before_train_iter(runner, 0, bad('a ü.mp4', 'b.mp4'))
    assert len(runner.logged) == 2
    assert runner.logged[0].startswith('a ü.mp4 cannot be read: it is empty; another video takes')
    when = {'stage': 'train', 'epoch': 2, 'iter': 30, 'rank': 0, 'worker': 3}
    assert listed(runner) == [
        {'file': name, 'reason': 'it is empty', **when} for name in ('a ü.mp4', 'b.mp4')
    ]


def test_a_resumed_training_appends_to_the_list_and_a_new_one_starts_a_new_list(
    runner: Any,
) -> None:
    start(runner).before_train_iter(runner, 0, bad('a.mp4'))
    start(runner).before_train_iter(runner, 0, bad('a.mp4', 'b.mp4'))
    assert [video['file'] for video in listed(runner)] == ['a.mp4', 'b.mp4']
    assert len(runner.logged) == 2
    runner.iter = 0
    start(runner).before_train_iter(runner, 0, bad('c.mp4'))
    assert [video['file'] for video in listed(runner)] == ['c.mp4']


def test_more_than_the_fraction_stops_the_training(runner: Any) -> None:
    hook = start(runner)
    for number in range(10):
        hook.before_train_iter(runner, 0, bad(f'{number}.mp4'))
    for _ in range(100):
        hook.before_train_iter(runner, 0, bad('3.mp4'))  # met again, in every epoch
    with pytest.raises(
        ValueError, match=r'11 of 1,000 .* 10 may be unreadable .*jsonl.*\.max_fraction'
    ):
        hook.before_train_iter(runner, 0, bad('10.mp4'))


def test_a_few_are_tolerated_in_a_small_data_set(runner: Any) -> None:
    runner.train_dataloader.dataset = [None] * 10
    hook = start(runner)
    hook.before_train_iter(runner, 0, bad(*'abcde'))
    with pytest.raises(ValueError, match=r'6 of 10 training videos cannot be read, and 5 may'):
        hook.before_train_iter(runner, 0, bad('f'))
    runner.iter = 0
    with pytest.raises(ValueError, match=r'1 of 10 .* 0 may be unreadable'):
        start(runner, max_few=0, max_fraction=0).before_train_iter(runner, 0, bad('a'))


def test_videos_listed_before_a_resume_count(runner: Any) -> None:
    start(runner).before_train_iter(runner, 0, bad(*map(str, range(10))))
    with pytest.raises(ValueError, match='11 of 1,000'):
        start(runner).before_train_iter(runner, 0, bad('new'))


def test_failed_videos_of_a_test_are_logged_and_counted(runner: Any) -> None:
    hook = start(runner)
    good, failed = Sample(), Sample(filename='a.mp4', failed='it is empty', worker=0)
    for _ in range(2):  # two validations; a video may come twice, to fill a batch
        hook.before_val_epoch(runner)
        hook.after_val_iter(runner, 0, None, [good, failed])
        hook.after_val_iter(runner, 1, None, [failed])
        hook.after_val_epoch(runner)
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0, None, [good])
    hook.after_test_epoch(runner)
    assert len(runner.logged) == 3
    assert 'a.mp4 cannot be read: it is empty; it counts as wrong' in runner.logged[0]
    assert runner.logged[1].startswith('1 of 1,000 videos could not be read, and count as wrong')
    assert runner.logged[2] == runner.logged[1]
    assert listed(runner)[0]['stage'] == 'val'


def test_data_sets_leave_logging_to_the_hook(runner: Any) -> None:
    class Inner:
        has_listener = False

    inner = Inner()
    runner._val_loop = SimpleNamespace(
        dataloader=SimpleNamespace(
            dataset=SimpleNamespace(datasets=[SimpleNamespace(dataset=inner)])
        )
    )
    start(runner)
    assert inner.has_listener


def test_a_list_that_cannot_be_written_does_not_end_the_run(runner: Any, tmp_path: Path) -> None:
    hook = start(runner)
    (tmp_path / 'bad_videos.jsonl').mkdir()
    hook.before_train_iter(runner, 0, bad('a.mp4'))
    assert 'bad_videos.jsonl cannot be written' in runner.logged[0]
    assert runner.logged[1].startswith('a.mp4 cannot be read')


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r'max_fraction=1\.5 is not a fraction; .*unreadable_videos\.max_fraction'
    ):
        UnreadableVideosHook(max_fraction=1.5)
    with pytest.raises(ValueError, match='max_few=-1 is negative'):
        UnreadableVideosHook(max_few=-1)


def add_many(path: Path, start: int, found: Any) -> None:
    """Add sixty videos, of which most are also added by others."""
    mine = UnreadableVideoList(path)
    for number in range(start, start + 60):
        found.put(len(mine.add([{'file': f'{number}.mp4', 'reason': 'x' * 3000}])))


@pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork:DeprecationWarning')
def test_many_processes_write_one_list_without_duplicates_or_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / 'list.jsonl'
    context = multiprocessing.get_context('fork')
    found = context.Queue()
    writers = [context.Process(target=add_many, args=(path, 10 * i, found)) for i in range(4)]
    for writer in writers:
        writer.start()
    news = [found.get(timeout=60) for _ in range(4 * 60)]
    for writer in writers:
        writer.join()
    names = [json.loads(line)['file'] for line in path.read_text().splitlines()]
    assert sorted(names) == sorted({f'{number}.mp4' for number in range(90)})
    assert sum(news) == 90, 'each was new to one of them'


@pytest.mark.parametrize(
    'line',
    [b'3', b'"a"', b'[1]', b'{}', b'{"file": 3}', b'{"file": ["a"]}', b'\xff\x00', b'[' * 10**6],
)
def test_lines_of_another_program_are_ignored(runner: Any, line: bytes) -> None:
    path = Path(runner.work_dir) / 'bad_videos.jsonl'
    path.write_bytes(line + b'\n{"file": "b.mp4"}\n')
    hook = start(runner)
    hook.before_train_iter(runner, 0, bad('a.mp4', 'b.mp4'))
    assert len(runner.logged) == 1 and runner.logged[0].startswith('a.mp4 cannot be read')
    assert path.read_bytes().startswith(line + b'\n')


def test_an_incomplete_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / 'list.jsonl'
    path.write_text('{"file": "a.mp4"}\n{"file": "b.m')
    assert UnreadableVideoList(path).add([{'file': 'a.mp4'}, {'file': 'b.mp4'}]) == [
        {'file': 'b.mp4'}
    ]
    assert path.read_text() == '{"file": "a.mp4"}\n{"file": "b.m\n{"file": "b.mp4"}\n'
