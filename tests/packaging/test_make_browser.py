"""``make browser`` installs what is missing, or prints the one command; CI skips no page test."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from requirements import make_browser
from tests import page_requirements

HOSTS = "Could not resolve 'deb.example.org'\nE: https://mirror.example.org/x  404"


class Commands(list):
    """Programs on the PATH, and the commands that would have run; apt-get may need an update."""

    def __init__(self, *there: str, lists: bool = True, fails: bool = False) -> None:
        self.there, self.lists, self.fails = {*there}, lists, fails

    def which(self, name: str) -> str | None:
        return f'/bin/{name}' if name in self.there else None

    def run(self, command: tuple[str, ...], **options: object) -> subprocess.CompletedProcess:
        self.append(' '.join(command))
        if 'update' in command:
            self.lists = True
        failed = self.fails or ('install' in command and command[0] == 'apt-get' and not self.lists)
        if command[0] == 'apt-get' and 'install' in command and not failed:
            self.there |= {'chromium', 'chromedriver'}
        return subprocess.CompletedProcess(command, int(failed), HOSTS)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    def run(commands: Commands, root: bool = True) -> int:
        make_browser.find_browser.cache_clear()
        monkeypatch.setattr(make_browser.shutil, 'which', commands.which)
        monkeypatch.setattr(make_browser.subprocess, 'run', commands.run)
        monkeypatch.setattr(os, 'geteuid', lambda: 0 if root else 1000)
        monkeypatch.setattr(sys, 'prefix', str(tmp_path))
        return make_browser.main()

    yield run
    make_browser.find_browser.cache_clear()


def test_the_first_run_installs_and_the_second_does_nothing(install) -> None:
    commands = Commands('apt-get')
    assert install(commands) == 0
    pip, apt = commands
    assert '--no-deps' in pip and 'demo.txt' in pip and 'browser.txt' in pip
    assert apt.startswith('apt-get ') and apt.endswith(' chromium chromium-driver')
    assert install(commands) == 0 and len(commands) == 2


def test_lists_of_packages_are_fetched_where_they_are_missing(install) -> None:
    commands = Commands('apt-get', lists=False)
    assert install(commands) == 0
    assert ['install' in line for line in commands[1:]] == [True, False, True]


def test_others_than_root_read_the_one_command(install, capsys: pytest.CaptureFixture) -> None:
    commands = Commands('apt-get', 'chromium')
    assert install(commands, root=False) == 1
    assert '\n  sudo apt-get install -y chromium chromium-driver\n' in capsys.readouterr().err
    assert len(commands) == 1, 'only pip ran'


def test_a_failure_names_the_step_and_no_host(install, capsys: pytest.CaptureFixture) -> None:
    assert install(Commands('apt-get', fails=True)) == 1
    err = capsys.readouterr().err
    assert 'pip install' in err and 'exit code 1' in err and 'example' not in err


def test_the_browser_of_the_version_of_chromedriver_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = {'/bin/chromium': '149', '/bin/google-chrome': '150', 'chromedriver': '150'}
    commands = Commands('chromium', 'google-chrome', 'chromedriver')
    monkeypatch.setattr(make_browser.shutil, 'which', commands.which)
    monkeypatch.setattr(make_browser, 'major_version', versions.__getitem__)
    make_browser.find_browser.cache_clear()
    assert make_browser.find_browser() == '/bin/google-chrome'
    make_browser.find_browser.cache_clear()


@pytest.mark.parametrize('ci', ['', 'true'])
def test_what_is_missing_is_a_skip_and_in_ci_a_failure(
    ci: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('CI', ci)
    monkeypatch.setitem(page_requirements.FOUND, 'Gradio', lambda: None)
    expected = pytest.fail.Exception if ci else pytest.skip.Exception
    with pytest.raises(expected, match='Gradio missing: run `make browser`'):
        page_requirements.require('Gradio')
