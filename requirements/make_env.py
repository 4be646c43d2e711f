"""Make a virtual environment with the pinned versions; do nothing when it is up to date.

    python3 requirements/make_env.py .venv
    python3 requirements/make_env.py .venv-stacks/x requirements/constraints-x.txt

The second form takes the lines of constraints.txt, replaced package by package by those of the
file named. Standard library only, and readable by an old Python 3, which it sends away in words.

An environment is in one of three states, marked by a file inside it:
`.made`        finished; holds the fingerprint of what it was made from
`.unfinished`  an install was interrupted here: it is deleted and made again
neither        not made by this script: never touched
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, TOO_NEW = (3, 10), (3, 14)


def main(arguments):
    """Bring the environment named on the command line up to date; return the exit code."""
    if len(arguments) not in (1, 2):
        print(__doc__)
        return 2
    try:
        check_python(sys.version_info)
        make_environment(Path(os.path.abspath(arguments[0])), *arguments[1:])  # noqa: PTH100
    except (OSError, ValueError) as error:
        print(f'make_env: {error}', file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        print(
            f'make_env: the step above failed, see its own message; {arguments[0]} is '
            'made again at the next try',
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def check_python(version):
    """Refuse a Python on which the pinned versions cannot work."""
    if not OLDEST <= tuple(version[:2]) < TOO_NEW:
        raise ValueError(
            f'{sys.executable} is Python {version[0]}.{version[1]}; mmtimesformer needs 3.10 to '
            '3.13 (MMEngine breaks on 3.14): name one, as in `make test PYTHON=python3.12`'
        )


def make_environment(venv, overlay=None):
    """Make or update `venv`, unless its fingerprint is up to date."""
    pins = merge_pins((ROOT / 'requirements' / 'constraints.txt').read_text())
    if overlay:
        pins = merge_pins('\n'.join(pins), Path(overlay).read_text())
    fingerprint = fingerprint_of(pins)
    if is_up_to_date(venv, fingerprint):
        return
    with one_at_a_time():
        if is_up_to_date(venv, fingerprint):  # by another make, while this one waited
            return
        started = time.time()
        prepare_folder(venv)
        install(venv, pins)
        (venv / '.unfinished').write_text(fingerprint)
        (venv / '.unfinished').replace(venv / '.made')
        log(f'{venv.name} is ready after {time.time() - started:.0f} s')


def merge_pins(text, overlay=''):
    """Return the pins of `text`, those of a package that `overlay` names too replaced by its own.

    Args:
        text: lines `name==version`, perhaps with a marker; `#` starts a comment.
        overlay: more of them, which win.
    """

    def pins(lines):
        return [line.strip() for line in lines.splitlines() if line.split('#')[0].strip()]

    def name(pin):
        return re.split('[=;<> ]', pin)[0].lower().replace('_', '-')

    replaced = {name(pin) for pin in pins(overlay)}
    return [pin for pin in pins(text) if name(pin) not in replaced] + pins(overlay)


def fingerprint_of(pins):
    """Return what an environment depends on, in one line: Python, checkout, pins, metadata."""
    sources = [ROOT / 'pyproject.toml', ROOT / 'setup.py', Path(__file__)]
    parts = [str(ROOT), *pins, *(source.read_text() for source in sources)]
    return f'{this_python()} {hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}\n'


def this_python():
    """Return the name of this Python's minor version: packages built for another do not fit."""
    return 'python{}.{}'.format(*sys.version_info[:2])


def is_up_to_date(venv, fingerprint):
    """Return whether `venv` was finished from exactly this fingerprint and still has its Python."""
    made = venv / '.made'
    return made.is_file() and made.read_text() == fingerprint and python_of(venv).exists()


def python_of(venv):
    """Return the path of an environment's interpreter."""
    return venv / 'bin' / 'python'


def prepare_folder(venv):
    """Leave a bare or an earlier environment at `venv`, marked as unfinished.

    Raises:
        ValueError: the folder exists and this script did not make it.
    """
    made, unfinished = venv / '.made', venv / '.unfinished'
    if made.is_file():
        if made.read_text().startswith(this_python() + ' ') and python_of(venv).exists():
            log(f'bringing {venv} up to date')
            made.replace(unfinished)
            return
        log(f'{venv} belongs to another Python: making it again')
    elif unfinished.is_file():
        log(f'an earlier install of {venv} was interrupted: making it again')
    elif venv.exists() and (not venv.is_dir() or any(venv.iterdir())):
        raise ValueError(
            f'{venv} exists and make did not make it, so it is left alone; '
            'move it away, or name another folder with VENV=...'
        )
    venv.mkdir(parents=True, exist_ok=True)
    unfinished.touch()  # first, so that the folder is ours whenever this is interrupted
    for entry in venv.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != unfinished:
            entry.unlink()
    log(f'making {venv} with {sys.executable}, once')
    subprocess.run([sys.executable, '-m', 'venv', str(venv)], check=True)


def install(venv, pins):
    """Install the pinned versions and this project, editable, into `venv`."""
    constraints = venv / 'constraints.txt'
    constraints.write_text('\n'.join(pins) + '\n')
    torch = next(pin for pin in pins if pin.startswith('torch=='))
    log(f'  {torch} and the libraries of its build')
    pip(venv, '-c', str(constraints), torch)
    # --no-deps: the list is whole, and mmaction2 insists on decord also where it has no wheel
    log(f'  the pinned packages, {len(pins)} lines')
    pip(venv, '--no-deps', '-r', str(constraints))
    log('  mmtimesformer itself, from this checkout')
    pip(venv, '--no-deps', '--no-build-isolation', '-e', str(ROOT))


def pip(venv, *arguments):
    """Run `pip install` inside an environment; only its errors are shown."""
    subprocess.run(
        [str(python_of(venv)), '-m', 'pip', 'install', '-qq', *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        env=dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_USER='0', PIP_NO_INPUT='1'),
    )


@contextlib.contextmanager
def one_at_a_time():
    """Let one process make environments in this checkout, while others wait."""
    import fcntl  # not on Windows, which has no make either

    with Path(__file__).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log('waiting for another make in this checkout')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def log(text):
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
