"""Make a virtual environment with the pinned versions; do nothing when it is up to date.

    python3 requirements/make_env.py .venv
    python3 requirements/make_env.py .venv-stacks/x requirements/constraints-x.txt

The second form takes the lines of constraints.txt, replaced package by package by those of the file
named. Standard library only, and readable by an old Python, which is told in words to step aside.

An environment is in one of three states, and a file inside it says which:
`.made`        finished; holds the fingerprint of what it was made from
`.unfinished`  an install was interrupted here: it is thrown away and made anew
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

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OLDEST, TOO_NEW = (3, 10), (3, 14)


def main(arguments):
    """Bring the environment named on the command line up to date; return the exit code."""
    if len(arguments) not in (1, 2):
        print(__doc__)
        return 2
    try:
        check_python(sys.version_info)
        make_environment(os.path.abspath(arguments[0]), *arguments[1:])
    except (OSError, ValueError) as error:
        print('make_env: {}'.format(error), file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        print(
            'make_env: the step above failed, its own message says why; {} is made anew '
            'at the next try'.format(arguments[0]),
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
            'Python {}.{} at {}; mmtimesformer needs 3.10 to 3.13 (MMEngine breaks on 3.14): '
            'name another one, as in `make test PYTHON=python3.12`'.format(
                version[0], version[1], sys.executable
            )
        )


def make_environment(venv, overlay=None):
    """Make or update `venv`, unless its fingerprint says that it is up to date."""
    pins = merge_pins(read(os.path.join(ROOT, 'requirements', 'constraints.txt')))
    if overlay:
        pins = merge_pins('\n'.join(pins), read(overlay))
    fingerprint = fingerprint_of(pins)
    if is_up_to_date(venv, fingerprint):
        return
    with one_at_a_time():
        if is_up_to_date(venv, fingerprint):  # by another make, while this one waited
            return
        started = time.time()
        prepare_folder(venv)
        install(venv, pins)
        with open(os.path.join(venv, '.unfinished'), 'w') as file:
            file.write(fingerprint)
        os.replace(os.path.join(venv, '.unfinished'), os.path.join(venv, '.made'))
        say('{} is ready after {:.0f} s'.format(os.path.relpath(venv), time.time() - started))


def read(path):
    """Return the text of a file."""
    with open(path, encoding='utf-8') as file:
        return file.read()


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
    """Return what an environment depends on, as one line: Python, checkout, pins and metadata."""
    sources = [read(os.path.join(ROOT, name)) for name in ('pyproject.toml', 'setup.py')]
    digest = hashlib.sha256('\0'.join([ROOT, *pins, *sources, read(__file__)]).encode())
    return 'python{}.{} {}\n'.format(*sys.version_info[:2], digest.hexdigest())


def is_up_to_date(venv, fingerprint):
    """Tell whether `venv` was finished from exactly this fingerprint and still has its Python."""
    try:
        return read(os.path.join(venv, '.made')) == fingerprint and os.path.exists(python_of(venv))
    except FileNotFoundError:
        return False


def python_of(venv):
    """Return the path of an environment's interpreter."""
    return os.path.join(venv, 'bin', 'python')


def prepare_folder(venv):
    """Leave a working bare or earlier environment at `venv`, marked as unfinished.

    Raises:
        ValueError: the folder exists and this script did not make it.
    """
    made, unfinished = os.path.join(venv, '.made'), os.path.join(venv, '.unfinished')
    if os.path.lexists(made):
        same_python = read(made).split()[:1] == ['python{}.{}'.format(*sys.version_info[:2])]
        if same_python and os.path.exists(python_of(venv)):
            say('bringing {} up to date'.format(os.path.relpath(venv)))
            os.replace(made, unfinished)
            return
    elif os.path.isdir(venv) and os.listdir(venv) and not os.path.exists(unfinished):
        raise ValueError(
            '{} exists and was not made by make, so it is left alone; '
            'move it away, or name another folder with VENV=...'.format(venv)
        )
    if os.path.isdir(venv):
        say('{} is unfinished or of another Python: starting over'.format(os.path.relpath(venv)))
        shutil.rmtree(venv)
    say('making {} with {}, once'.format(os.path.relpath(venv), sys.executable))
    os.makedirs(venv)
    with open(unfinished, 'w'):
        pass
    subprocess.run([sys.executable, '-m', 'venv', venv], check=True)


def install(venv, pins):
    """Install the pinned versions and this project, editable, into `venv`."""
    constraints = os.path.join(venv, 'constraints.txt')
    with open(constraints, 'w', encoding='utf-8') as file:
        file.write('\n'.join(pins) + '\n')
    torch = next(pin for pin in pins if pin.startswith('torch=='))
    say('  {} and the libraries of its build'.format(torch))
    pip(venv, '-c', constraints, torch)
    # --no-deps: the list is whole, and mmaction2 insists on decord also where it has no wheel
    say('  {} pinned packages'.format(len(pins)))
    pip(venv, '--no-deps', '-r', constraints)
    say('  mmtimesformer itself, from this checkout')
    pip(venv, '--no-deps', '--no-build-isolation', '-e', ROOT)


def pip(venv, *arguments):
    """Run `pip install` inside an environment; only its errors are shown."""
    subprocess.run(
        [python_of(venv), '-m', 'pip', 'install', '-qq', *arguments],
        check=True,
        stdin=subprocess.DEVNULL,
        env=dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_USER='0', PIP_NO_INPUT='1'),
    )


@contextlib.contextmanager
def one_at_a_time():
    """Let one process make environments in this checkout; others wait."""
    import fcntl  # not on Windows, which has no make either

    with open(os.path.abspath(__file__)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say('waiting for another make in this checkout')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def say(text):
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
