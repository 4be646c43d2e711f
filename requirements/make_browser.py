"""Install what the tests of pages need; do nothing where it is there.

    .venv/bin/python requirements/make_browser.py

Chromium and chromedriver come from Debian packages, which needs root. Gradio and axe-core come from
demo.txt and browser.txt, into the environment of the Python that runs this. Standard library only.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
LISTS = ('demo.txt', 'browser.txt')
BROWSERS = (
    'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome',
)  # fmt: skip
PACKAGES = ('chromium', 'chromium-driver')
APT = ('apt-get', '-qq', '-o', 'DPkg::Lock::Timeout=120')
INSTALL = (*APT, 'install', '-y', '--no-install-recommends', *PACKAGES)


def main():
    """Install what is missing; return the exit code."""
    try:
        install_requirements(Path(sys.prefix))
        install_browser()
    except (OSError, ValueError) as error:
        print(f'make browser: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


@functools.cache
def find_browser():
    """Return the path of Chromium or Chrome, or None.

    Where there are several, it is the one whose major version chromedriver has: it refuses others.
    """
    found = [path for path in map(shutil.which, BROWSERS) if path]
    if len(found) > 1 and has_driver():
        wanted = major_version('chromedriver')
        found.sort(key=lambda path: major_version(path) != wanted)
    return found[0] if found else None


def has_driver():
    """Return whether chromedriver, which controls the browser, is on the PATH."""
    return shutil.which('chromedriver') is not None


def major_version(command):
    """Return the first number that `command --version` prints, or '' if it prints none."""
    done = subprocess.run([command, '--version'], capture_output=True, text=True, check=False)
    number = re.search(r'\d+', done.stdout)
    return number.group() if number else ''


def install_requirements(venv):
    """Install Gradio and axe-core, unless `pages.txt` in the environment has the same versions."""
    wanted = ''.join((FOLDER / name).read_text() for name in LISTS)
    made = venv / 'pages.txt'
    if made.is_file() and made.read_text() == wanted:
        return
    lists = [word for name in LISTS for word in ('-r', str(FOLDER / name))]
    # --no-deps: the lists are complete, and pip must not change the versions of constraints.txt
    run(sys.executable, '-m', 'pip', 'install', '-qq', '--no-deps', *lists)
    made.write_text(wanted)


def install_browser():
    """Install Chromium and chromedriver by apt-get.

    Raises:
        ValueError: they are missing, and only root can install them, or there is no apt-get.
    """
    if find_browser() and has_driver():
        return
    if not shutil.which('apt-get'):
        raise ValueError('install Chromium and chromedriver; there is no apt-get here to do it')
    if os.geteuid() != 0:
        raise ValueError(
            'Chromium or chromedriver is missing, and only root can install them; run\n'
            f'  sudo apt-get install -y {" ".join(PACKAGES)}'
        )
    print('installing Chromium and chromedriver', flush=True)
    environment = {'DEBIAN_FRONTEND': 'noninteractive'}
    try:
        run(*INSTALL, **environment)
    except ValueError:  # the lists of packages are missing or old
        run(*APT, 'update')
        run(*INSTALL, **environment)
    find_browser.cache_clear()
    if not (find_browser() and has_driver()):
        raise ValueError(
            f'apt-get installed {" and ".join(PACKAGES)}, but they are not on the PATH'
        )


def run(*command, **environment):
    """Run a command; its output is shown only if it fails, without addresses of servers.

    Raises:
        ValueError: it failed.
    """
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            'PIP_DISABLE_PIP_VERSION_CHECK': '1',
            'PIP_NO_INPUT': '1',
            **environment,
        },
    )
    if done.returncode:
        output = hide_addresses('\n'.join(done.stdout.splitlines()[-20:]))
        name = ' '.join(Path(word).name for word in command[:4])
        raise ValueError(f'{name} … failed with exit code {done.returncode}:\n{output}')


def hide_addresses(text):
    """Return `text` without URLs and host names."""
    text = re.sub(r'\w+://\S+', '<address>', text)
    return re.sub(r'(host|resolve|connect to)(\W+)[\w.-]+\.\w+(:\d+)?', r'\1\2<host>', text)


if __name__ == '__main__':
    sys.exit(main())
