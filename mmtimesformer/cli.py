"""Exit codes and error messages of the command-line tools.

====  =========================================================================
code  meaning
====  =========================================================================
0     done
1     a mistake in the config, the files or the machine, or a run that failed
2     a mistake on the command line
3     done, but some videos or files could not be read; the tool lists them
75    a training was asked to stop (SIGTERM, SIGUSR1, SIGHUP), or cannot reach its videos any more,
      and has saved its state: run the same command with ``--resume``
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
from pathlib import Path
from types import FrameType

from mmtimesformer.terminal import echo, echo_lines, safe_text, safe_warnings

DONE, FAILED, INCOMPLETE, STOPPED, INTERRUPTED = 0, 1, 3, 75, 130  # 75: EX_TEMPFAIL, "try again"
INSTALL = 'pip install "mmtimesformer[mmaction]"'
StrPath = str | os.PathLike[str]
USER_ERRORS = (ValueError, TypeError, LookupError, OSError, ImportError)


class RunStopped(Exception):  # noqa: N818 (not an error)
    """A run stopped early because it was asked to.

    Args:
        message: How it ended, and how to resume.
        code: The exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class SignalExit(BaseException):  # past ``except Exception``, like KeyboardInterrupt
    """Raised by SIGTERM or SIGHUP, so that every ``with`` and ``finally`` cleans up.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


@contextmanager
def exit_on_signals() -> Iterator[list[int]]:
    """Raise :class:`SignalExit` on SIGTERM and SIGHUP, so that temporary files are removed.

    Ignored signals stay ignored (``nohup`` ignores SIGHUP), and existing handlers stay. A second
    signal ends the process at once. Forked processes end at once.

    Yields:
        The signals received so far.

    Raises:
        SignalExit: In the main thread, after a signal.
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
    """Run a tool's job, print its error, and return the exit code.

    Args:
        job: What the tool does.
        debug: Print the stack trace of an error as well.
        resume_hint: How to resume the job after an interruption.
    """
    hint = f'; {resume_hint}' if resume_hint else ''
    received: list[int] = []
    message = ''
    try:
        with exit_on_signals() as received, safe_warnings():
            job()
        code = DONE
    except KeyboardInterrupt:
        code, message = INTERRUPTED, f'interrupted{hint}'
    except SignalExit as end:
        code, message = end.code, f'ended by {end}{hint}'
    except RunStopped as end:
        code, message = end.code, str(end)
    except Exception as error:
        if received:  # for example, a progress bar failed on a closed terminal
            code, message = 128 + received[0], f'ended by {signal.Signals(received[0]).name}{hint}'
        else:
            code, message = FAILED, f'error: {error_message(error)}'
            if debug:
                with suppress(OSError):
                    echo_lines(traceback.format_exc(), file=sys.stderr)
    if message:
        print_error(f'\n{message}')
    flush_output()
    return code


def print_error(message: str) -> None:
    """Print to standard error, even if its terminal was closed."""
    with suppress(OSError, ValueError):
        echo(message, file=sys.stderr, flush=True)


def flush_output() -> None:
    """Flush the output streams; keep a closed terminal from changing the exit code (to 120)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):  # noqa: PERF203 (of two streams)
            with suppress(OSError, ValueError, AttributeError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def error_message(error: BaseException) -> str:
    """Return the message of an exception in one line.

    Messages of :data:`USER_ERRORS` stay as they are. Others get the name of their class and refer
    to ``--debug``. An exception from a DataLoader worker holds that process's stack trace as its
    text; the last line is the cause.
    """
    kind, text = type(error).__name__, str(error)
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])
    if 'Original Traceback' in text:
        kind, text = _cause(text)
        return f'a DataLoader worker failed: {kind}: {_one_line(text)}'
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
    """Return class and message of the last exception in a printed stack trace."""
    raised = r'^([\w.]+(?:Error|Exception|Interrupt|Exit)): (.*(?:\n(?! ).+)*)'
    found = re.findall(raised, text, re.MULTILINE)
    return found[-1] if found else ('Exception', text.strip().splitlines()[-1])


def _one_line(text: str) -> str:
    return safe_text(' '.join(text.split()))


def near_name(name: str, known: Iterable[str], cutoff: float = 0.6, count: int = 1) -> str:
    """Return the end of a message, ``"; did you mean 'x'?"``, or nothing if no name is similar."""
    near = difflib.get_close_matches(name, sorted(known), n=count, cutoff=cutoff)
    return f'; did you mean {" or ".join(map(repr, near))}?' if near else ''


def require_file(
    path: StrPath, what: str, remedy: str, exists: Callable[[Path], bool] = Path.exists
) -> None:
    """Raise ``FileNotFoundError`` if a path does not exist; addresses such as ``https://`` pass.

    Args:
        path: The path; ``~`` is the home folder.
        what: Its kind, such as ``'checkpoint'``.
        remedy: Which option or key to change.
        exists: ``Path.is_file`` or ``Path.is_dir`` where only that is allowed.
    """
    place = Path(path).expanduser()
    if '://' not in str(path) and not exists(place):
        raise FileNotFoundError(
            f'{what} {path} does not exist (looked in {place.absolute().parent}); {remedy}'.lstrip()
        )


def require_mmaction() -> None:
    """Check that MMAction2 and mmcv can be imported.

    mmcv and mmcv-lite overwrite each other's files. Removing one leaves an empty ``mmcv`` folder,
    which still imports, as a namespace without a version.

    Raises:
        ModuleNotFoundError: One is missing or unusable; the message ends with a command to fix it.
    """
    # mmcv-lite warns of operators that no TimeSformer uses
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
    except AssertionError as error:  # MMAction2 refuses a version
        raise _missing(str(error).split('. ')[0], INSTALL) from error


def _missing(what: str, command: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f'videos are read and models are trained by MMAction2, but {what}; run: {command}'
    )
