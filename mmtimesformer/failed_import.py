"""Run `doctor` where the package itself cannot be imported, as that is when it is needed."""

import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_FILES = (_PACKAGE / '.mim/tools/doctor.py', _PACKAGE.parent / 'tools/doctor.py')
_COMMANDS = (['-m', 'mmtimesformer', 'doctor'], ['mmtimesformer', 'doctor'])


def run_doctor_if_called() -> None:
    """Run the doctor and exit if it is the command, and otherwise return.

    Called with the error of a broken package in flight; the doctor imports none of them.
    """
    words = [Path(word).name if not word.startswith('-') else word for word in sys.orig_argv[1:]]
    wanted = any(words[: len(command)] == command for command in _COMMANDS)
    file = next((path for path in _FILES if path.is_file()), None)
    if wanted and file is not None:
        after = sys.orig_argv.index('doctor') + 1
        sys.argv = [str(file), *sys.orig_argv[after:]]
        runpy.run_path(str(file), run_name='__main__')  # which exits
