"""How a tool ends: what went wrong in one sentence, and an exit code.

====  =========================================================================
code  meaning
====  =========================================================================
0     done
1     a mistake in the config, the files or the machine, or a run that failed
2     a mistake on the command line
3     done, but some of the videos or files could not be read; the tool says which
75    a training was asked to stop (SIGTERM, SIGUSR1, SIGHUP), or its videos cannot be reached any
      more, and it has saved: run it again with ``--resume``
129   ended by SIGHUP: the terminal was closed, or its connection lost (not under ``nohup``)
130   interrupted (Ctrl-C)
143   ended by SIGTERM
====  =========================================================================
"""

import difflib
import importlib
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from mmtimesformer.terminal import echo, echo_lines, safe_text, safe_warnings

DONE, FAILED, INCOMPLETE, STOPPED, INTERRUPTED = 0, 1, 3, 75, 130  # 75: EX_TEMPFAIL, "try again"
INSTALL = 'pip install "mmtimesformer[mmaction]"'
USER_ERRORS = (ValueError, TypeError, LookupError, OSError, ImportError)


class RunStopped(Exception):  # noqa: N818 (it is no error)
    """A run that ends early as it was asked to; its text is for the user.

    Args:
        sentence: How it ended, and how it goes on.
        code: The exit code.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class SignalExit(BaseException):  # past ``except Exception``, like KeyboardInterrupt
    """SIGTERM or SIGHUP came; it leaves every ``with`` and ``finally`` on its way.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextmanager
def exit_on_signals() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP end what is done meanwhile as Ctrl-C does: temporary files go.

    Signals that are ignored stay so (``nohup`` ignores SIGHUP), and a handler that is there already
    stays. A second signal ends the process at once. Processes that are forked end at once.

    Yields:
        The signals that came. What then closes a terminal that is gone may fail on its own.

    Raises:
        SignalExit: In the main thread, when one came.
    """
    own = os.getpid()
    received: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != own:
            os.kill(os.getpid(), number)
            return
        received.append(number)
        raise SignalExit(number)

    handled = []
    if threading.current_thread() is threading.main_thread():
        for name in ('SIGTERM', 'SIGHUP'):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, end)
                handled.append(number)
    try:
        yield received
    finally:
        for number in handled:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)


def run_tool(job: Callable[[], object], debug: bool = False, resume_hint: str = '') -> int:
    """Run a tool's job and return the exit code.

    Args:
        job: What the tool does.
        debug: Show the stack trace of a failure, not only its sentence.
        resume_hint: How to resume the job after an interruption, if that is possible.
    """
    more = f'; {resume_hint}' if resume_hint else ''
    received: list[int] = []
    try:
        with exit_on_signals() as received, safe_warnings():
            job()
    except KeyboardInterrupt:
        code, words = INTERRUPTED, f'interrupted{more}'
    except SignalExit as end:
        code, words = end.code, f'ended by {end}{more}'
    except RunStopped as end:
        code, words = end.code, str(end)
    except Exception as error:
        if received:  # and what shows progress found no terminal
            print_error(f'\nended by {signal.Signals(received[0]).name}{more}')
            flush_output()
            return 128 + received[0]
        if debug:
            with suppress(OSError):
                echo_lines(traceback.format_exc(), file=sys.stderr)
        code, words = FAILED, f'error: {error_message(error)}'
    else:
        code, words = DONE, ''
    if words:
        print_error(f'\n{words}')
    flush_output()
    return code


def print_error(words: str) -> None:
    """Print to standard error, which may be a terminal that was closed."""
    with suppress(OSError, ValueError):
        echo(words, file=sys.stderr, flush=True)


def flush_output() -> None:
    """Let output that nobody can read any more not change the exit code (to 120, by Python)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # noqa: PERF203 (of two streams)
            with suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def error_message(error: BaseException) -> str:
    """Tell an exception in one line.

    Our own and Python's letters to users stand as they are. Anything else keeps the name of its
    class and points at ``--debug``. An exception that crossed the border of a data-loading process
    carries that process's stack trace as its text; its last line is the cause.
    """
    kind, text = type(error).__name__, str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    if 'Original Traceback' in text:
        kind, text = _cause(text)
        return f'a data-loading process failed: {kind}: {_one_line(text)}'
    text = _one_line(text)
    if isinstance(error, OSError) and text.startswith('[Errno') and error.filename is not None:
        text = f'{os.fspath(error.filename)} cannot be read or written ({error.strerror})'
    unknown = re.match(r'(\S+) is not in the (\S+?)::(.+?) registry', text)
    if unknown:
        name, scope, registry = unknown.groups()
        return (
            f'there is no {registry} named {name!r} in {scope}; check the spelling of this `type`, '
            'and the prefix (mmtimesformer.TimeSformer)'
        )
    if text and isinstance(error, USER_ERRORS):
        return text
    return f'{kind}: {text or "no message"}; --debug shows where'


def _cause(text: str) -> tuple[str, str]:
    """Take the last exception out of a printed stack trace: its class and message."""
    raised = r'^([\w.]+(?:Error|Exception|Interrupt|Exit)): (.*(?:\n(?! ).+)*)'
    found = re.findall(raised, text, re.MULTILINE)
    return found[-1] if found else ('Exception', text.strip().splitlines()[-1])


def _one_line(text: str) -> str:
    return safe_text(' '.join(text.split()))


def near_name(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return the end of a sentence that asks whether another name was meant, or nothing."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=likeness)
    return f'; did you mean {near[0]!r}?' if near else ''


def require_mmaction() -> None:
    """See that MMAction2 and mmcv can be imported.

    mmcv and mmcv-lite overwrite each other's files, and removing one leaves an empty ``mmcv``
    folder that still imports, as a namespace without a version.

    Raises:
        ModuleNotFoundError: One is missing or unusable; the message ends with the command that
            helps.
    """
    # Said by mmcv-lite at import of operators that no TimeSformer has.
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    try:
        mmcv = importlib.import_module('mmcv')
    except ModuleNotFoundError as error:
        raise _missing(f'{error.name} is not installed', INSTALL) from error
    if not hasattr(mmcv, '__version__'):
        raise _missing(
            'mmcv is an empty folder, left behind when mmcv or mmcv-lite was removed',
            'pip install --force-reinstall --no-deps mmcv-lite==2.0.1',
        )
    try:
        importlib.import_module('mmaction')
    except ModuleNotFoundError as error:
        raise _missing(f'{error.name} is not installed', INSTALL) from error
    except AssertionError as error:  # MMAction2's own words on versions that do not fit
        raise _missing(str(error).split('. ')[0], INSTALL) from error


def _missing(what: str, command: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f'videos are read and models are trained by MMAction2, but {what}; run: {command}'
    )
