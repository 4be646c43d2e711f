"""Tools print errors in one line and return the right exit code."""

import signal
import sys
import types
from pathlib import Path

import pytest

from mmtimesformer import cli
from mmtimesformer.cli import (
    STOPPED,
    RunStopped,
    error_message,
    near_name,
    require_file,
    require_mmaction,
    run_tool,
)


def fail(error: BaseException) -> None:
    raise error


def worker_error() -> Exception:
    """What torch raises in the main process when a DataLoader worker has failed."""
    from torch._utils import ExceptionWrapper

    try:
        try:
            fail(KeyError('first'))
        except KeyError:
            fail(FileNotFoundError(2, 'No such file', 'videos/9.mp4'))
    except FileNotFoundError:
        wrapped = ExceptionWrapper(where='in DataLoader worker process 0')
    try:
        wrapped.reraise()
    except Exception as error:
        return error
    raise AssertionError


def test_done_is_zero() -> None:
    assert run_tool(lambda: None) == 0


def test_a_failure_is_one_line_and_code_1(capsys: pytest.CaptureFixture) -> None:
    assert run_tool(lambda: fail(ValueError('a\n  b'))) == 1
    assert capsys.readouterr().err == '\nerror: a b\n'


def test_debug_shows_where(capsys: pytest.CaptureFixture) -> None:
    assert run_tool(lambda: fail(ValueError('a')), debug=True) == 1
    errors = capsys.readouterr().err
    assert 'Traceback' in errors and 'in fail' in errors and errors.endswith('\nerror: a\n')


def test_an_interruption_is_130_with_a_hint_how_to_resume(
    capsys: pytest.CaptureFixture,
) -> None:
    assert run_tool(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == '\ninterrupted\n'
    assert run_tool(lambda: fail(KeyboardInterrupt()), resume_hint='try --resume') == 130
    assert capsys.readouterr().err == '\ninterrupted; try --resume\n'


def test_a_run_that_is_asked_to_stop_has_its_own_code(capsys: pytest.CaptureFixture) -> None:
    assert run_tool(lambda: fail(RunStopped('stopped after step 3', STOPPED))) == 75
    assert capsys.readouterr().err == '\nstopped after step 3\n'


def test_every_exit_code_is_in_the_table() -> None:
    documented = {
        line.split()[0] for line in (cli.__doc__ or '').splitlines() if line[:1].isdigit()
    }
    codes = (
        cli.DONE, cli.FAILED, cli.INCOMPLETE, cli.STOPPED, cli.INTERRUPTED
    )  # fmt: skip
    ended_by_signal = {str(128 + number) for number in (signal.SIGHUP, signal.SIGTERM)}
    assert {str(code) for code in codes} | {'2'} | ended_by_signal == documented


def test_an_error_of_a_worker_is_reduced_to_its_cause() -> None:
    message = error_message(worker_error())
    assert message == (
        "a DataLoader worker failed: FileNotFoundError: [Errno 2] No such file: 'videos/9.mp4'"
    )


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (KeyError('no such key'), 'no such key'),
        (RuntimeError('out of memory'), 'RuntimeError: out of memory; --debug shows where'),
        (AssertionError(), 'AssertionError: no message; --debug shows where'),
        (ValueError(), 'ValueError: no message; --debug shows where'),
    ],
)
def test_the_message_of_an_unexpected_exception_names_its_class(
    error: Exception, message: str
) -> None:
    assert error_message(error) == message


def test_an_empty_mmcv_folder_is_not_taken_for_an_installed_mmcv(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Removing mmcv after mmcv-lite leaves a folder that imports as a namespace."""
    monkeypatch.setitem(sys.modules, 'mmcv', types.ModuleType('mmcv'))
    monkeypatch.setattr('warnings.filterwarnings', lambda *args, **kwargs: None)
    with pytest.raises(ModuleNotFoundError, match='mmcv is an empty folder.*--force-reinstall'):
        require_mmaction()


def test_similar_names_are_suggested() -> None:
    assert near_name('trian', ['train', 'test']) == "; did you mean 'train'?"
    assert near_name('tran', ['train', 'trains', 'x'], 0.5, 2) == (
        "; did you mean 'train' or 'trains'?"
    )
    assert near_name('a', ['train']) == ''


def test_a_missing_file_is_an_error_that_names_the_folder_and_the_option(tmp_path: Path) -> None:
    file = tmp_path / 'a.pth'
    with pytest.raises(
        FileNotFoundError,
        match=rf'^checkpoint {file} does not exist \(looked in {tmp_path}\); set x$',
    ):
        require_file(file, 'checkpoint', 'set x')
    with pytest.raises(FileNotFoundError, match='list .* does not exist'):
        require_file(tmp_path, 'list', 'set x', Path.is_file)
    file.touch()
    require_file(file, 'checkpoint', 'set x')
    require_file(tmp_path, 'checkpoint', 'set x')
    require_file('https://example.org/a.pth', 'checkpoint', 'set x')
