"""How a tool ends: what went wrong in one sentence, and an exit code.

====  =========================================================================
code  meaning
====  =========================================================================
0     done
1     a mistake in the config, the files or the machine, or a run that failed
2     a mistake on the command line
3     done, but some of the videos or files could not be read; the tool says which
75    a training was asked to stop (SIGTERM, SIGUSR1) and has saved: run it again with ``--resume``
130   interrupted (Ctrl-C)
====  =========================================================================
"""

import os
import re
import sys
import traceback
from collections.abc import Callable

from mmtimesformer.terminal import echo, echo_lines, safe_text, safe_warnings

DONE, FAILED, INCOMPLETE, STOPPED, INTERRUPTED = 0, 1, 3, 75, 130  # 75: EX_TEMPFAIL, "try again"
LETTERS = (ValueError, TypeError, LookupError, OSError, ImportError)


class EndOfRun(Exception):  # noqa: N818 (it is no error)
    """A run that ends early as it was asked to; its text is for the user.

    Args:
        sentence: How it ended, and how it goes on.
        code: The exit code.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


def run_job(job: Callable[[], object], debug: bool = False, goes_on: str = '') -> int:
    """Run a tool's job and return the exit code.

    Args:
        job: What the tool does.
        debug: Show the stack trace of a failure, not only its sentence.
        goes_on: How the job can be gone on with after an interruption, if it can.
    """
    try:
        with safe_warnings():
            job()
    except KeyboardInterrupt:
        echo('\ninterrupted' + (f'; {goes_on}' if goes_on else ''), file=sys.stderr)
        return INTERRUPTED
    except EndOfRun as end:
        echo(f'\n{end}', file=sys.stderr)
        return end.code
    except Exception as error:
        if debug:
            echo_lines(traceback.format_exc(), file=sys.stderr)
        echo(f'\nerror: {sentence_of(error)}', file=sys.stderr)
        return FAILED
    return DONE


def sentence_of(error: BaseException) -> str:
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
    if text and isinstance(error, LETTERS):
        return text
    return f'{kind}: {text or "no message"}; --debug shows where'


def _cause(text: str) -> tuple[str, str]:
    """Take the last exception out of a printed stack trace: its class and message."""
    raised = r'^([\w.]+(?:Error|Exception|Interrupt|Exit)): (.*(?:\n(?! ).+)*)'
    found = re.findall(raised, text, re.MULTILINE)
    return found[-1] if found else ('Exception', text.strip().splitlines()[-1])


def _one_line(text: str) -> str:
    return safe_text(' '.join(text.split()))
