"""What goes wrong is told in one line, and the exit code says of what kind it was."""

import signal
import sys
import types

import pytest

from mmtimesformer import cli as letters
from mmtimesformer.cli import STOPPED, RunStopped, error_message, require_mmaction, run_tool


def fail(error: BaseException) -> None:
    raise error


def worker_error() -> Exception:
    """What torch raises here when a data-loading process has failed there."""
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
    said = capsys.readouterr().err
    assert 'Traceback' in said and 'in fail' in said and said.endswith('\nerror: a\n')


def test_an_interruption_is_130_and_tells_how_to_go_on_if_one_can(
    capsys: pytest.CaptureFixture,
) -> None:
    assert run_tool(lambda: fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == '\ninterrupted\n'
    assert run_tool(lambda: fail(KeyboardInterrupt()), resume_hint='try --resume') == 130
    assert capsys.readouterr().err == '\ninterrupted; try --resume\n'


def test_an_end_that_was_asked_for_has_its_own_code(capsys: pytest.CaptureFixture) -> None:
    assert run_tool(lambda: fail(RunStopped('stopped after step 3', STOPPED))) == 75
    assert capsys.readouterr().err == '\nstopped after step 3\n'


def test_every_exit_code_is_in_the_table() -> None:
    told = {line.split()[0] for line in (letters.__doc__ or '').splitlines() if line[:1].isdigit()}
    codes = (
        letters.DONE, letters.FAILED, letters.INCOMPLETE, letters.STOPPED, letters.INTERRUPTED
    )  # fmt: skip
    ended_by_signal = {str(128 + number) for number in (signal.SIGHUP, signal.SIGTERM)}
    assert {str(code) for code in codes} | {'2'} | ended_by_signal == told


def test_a_data_loading_process_is_reduced_to_the_cause() -> None:
    sentence = error_message(worker_error())
    assert sentence == (
        "a data-loading process failed: FileNotFoundError: [Errno 2] No such file: 'videos/9.mp4'"
    )


@pytest.mark.parametrize(
    ('error', 'sentence'),
    [
        (KeyError('no such key'), 'no such key'),
        (RuntimeError('out of memory'), 'RuntimeError: out of memory; --debug shows where'),
        (AssertionError(), 'AssertionError: no message; --debug shows where'),
        (ValueError(), 'ValueError: no message; --debug shows where'),
    ],
)
def test_other_exceptions_are_told(error: Exception, sentence: str) -> None:
    assert error_message(error) == sentence


def test_an_empty_mmcv_is_told_from_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing mmcv after mmcv-lite leaves a folder that imports as a namespace."""
    monkeypatch.setitem(sys.modules, 'mmcv', types.ModuleType('mmcv'))
    monkeypatch.setattr('warnings.filterwarnings', lambda *args, **kwargs: None)
    with pytest.raises(ModuleNotFoundError, match='mmcv is an empty folder.*--force-reinstall'):
        require_mmaction()
