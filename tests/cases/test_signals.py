"""SIGTERM and SIGHUP (a terminal that is closed) end every tool cleanly, and a training saves."""

import fcntl
import multiprocessing
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmtimesformer.cli import SignalExit, exit_on_signals, run_tool
from mmtimesformer.engine.distributed.process_signals import STOP_SIGNALS
from mmtimesformer.engine.distributed.stop_signals import StopSignals
from mmtimesformer.fileio.atomic import write_atomically
from tests.tools.conftest import tiny_config  # noqa: F401  (a fixture)
from tests.tools.running import finish, start

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Start with the handlers that a tool finds, and give the test's process its own back."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Terminal:
    """A command in a terminal of its own, which can be closed."""

    def __init__(self, *command: object, **environment: str) -> None:
        words = [str(word) for word in command]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
        variables = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **environment}
        self.screen, theirs = pty.openpty()
        self.process = subprocess.Popen(
            words, env=variables, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self.text = ''

    def wait_for(self, words: str, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < until, self.text
            if select.select([self.screen], [], [], 0.2)[0]:
                self.text += os.read(self.screen, 65536).decode(errors='replace')

    def close(self) -> int:
        """Close the terminal; return the exit code of the command."""
        os.close(self.screen)
        return self.process.wait(120)


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_tool_ends_with_a_sentence_and_leaves_no_half_file(
    number: signal.Signals, code: int, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    def job() -> None:
        with write_atomically(tmp_path / 'labels.json') as part:
            part.write_text('{')
            os.kill(os.getpid(), number)
            time.sleep(10)

    assert run_tool(job, resume_hint='the same command continues') == code
    printed = capfd.readouterr().err
    assert printed == f'\nended by {number.name}; the same command continues\n'
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) is signal.SIG_DFL


def test_what_fails_on_the_way_out_does_not_hide_the_signal(capfd: pytest.CaptureFixture) -> None:
    """What shows progress writes to a terminal that is gone."""

    def job() -> None:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(10)
        finally:
            raise OSError(5, 'Input/output error')

    assert run_tool(job) == 129
    assert 'Input/output' not in capfd.readouterr().err


def test_nohup_is_respected() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def job() -> None:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.received and signals.received[0] == 'SIGTERM'
        os.kill(os.getpid(), signal.SIGHUP)

    assert run_tool(job) == 0
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_training_notes_sighup_like_sigterm() -> None:
    with exit_on_signals(), StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.received and signals.received[0] == 'SIGHUP'
    with pytest.raises(SignalExit), exit_on_signals():
        with StopSignals():
            pass
        os.kill(os.getpid(), signal.SIGHUP)  # after the training: it ends the tool
        time.sleep(10)


def test_a_forked_process_ends_at_once() -> None:
    """Else each data-loading process would print a stack trace of its own."""
    with exit_on_signals():
        child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
        with warnings.catch_warnings():  # of Python 3.12: this process has threads
            warnings.simplefilter('ignore', DeprecationWarning)
            child.start()
        time.sleep(0.5)  # Python loses a signal in the very moment of a fork
        child.terminate()
        child.join()
    assert child.exitcode == -signal.SIGTERM


def test_a_second_signal_ends_a_tool_that_hangs_on_its_way_out() -> None:
    code = (
        'import os, signal, time\n'
        'from mmtimesformer.cli import run_tool\n'
        'def job():\n'
        '    try:\n'
        '        os.kill(os.getpid(), signal.SIGTERM)\n'
        '        time.sleep(60)\n'
        '    finally:\n'
        '        os.kill(os.getpid(), signal.SIGTERM)\n'
        '        time.sleep(60)\n'
        'run_tool(job)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGTERM


def test_a_tool_on_a_closed_terminal_ends_with_its_code() -> None:
    """It prints before and after; nothing of that may become an exit code of 1 or 120."""
    code = (
        'import sys, time\n'
        'from mmtimesformer.cli import run_tool\n'
        'def job():\n'
        '    print("ready", flush=True)\n'
        '    time.sleep(60)\n'
        'sys.exit(run_tool(job))\n'
    )
    terminal = Terminal(sys.executable, '-c', code)
    terminal.wait_for('ready')
    assert terminal.close() == 129


@pytest.mark.slow
def test_a_training_saves_when_its_terminal_is_closed(
    tiny_config: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    words = [sys.executable, ROOT / 'tools/train.py', tiny_config, '--work-dir', tmp_path / 'out']
    long = ['--cfg-options', 'train_cfg.max_epochs=1000', 'train_cfg.val_interval=1000']
    terminal = Terminal(*words, *long, 'train_dataloader.num_workers=1')
    terminal.wait_for('Epoch(train)')
    assert terminal.close() == 75
    assert (tmp_path / 'out' / 'mid_epoch.pth').is_file()
    code, printed = finish(start(*words, '--resume', '--cfg-options', 'train_cfg.max_epochs=1'))
    assert code == 0, printed


@pytest.mark.slow
def test_processes_of_a_training_save_when_their_terminal_is_closed(
    tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)  # where nohup writes
    command = [
        'bash', ROOT / 'tools/dist_train.sh', tiny_config, 2, '--work-dir', tmp_path / 'out',
        '--cfg-options', 'train_cfg.max_epochs=1000', 'train_cfg.val_interval=1000',
    ]  # fmt: skip
    terminal = Terminal(*command, PYTHON=sys.executable)
    terminal.wait_for('Epoch(train)', 240)
    assert terminal.close() == 75
    assert (tmp_path / 'out' / 'mid_epoch.pth').is_file()
    nohup = Terminal('nohup', *command, PYTHON=sys.executable)
    nohup.wait_for('ignoring input')
    log = tmp_path / 'out'
    until = time.monotonic() + 240
    while sum('Epoch(train)' in path.read_text() for path in log.rglob('*.log')) < 2:
        assert time.monotonic() < until
        time.sleep(0.5)
    nohup.process.send_signal(signal.SIGHUP)
    time.sleep(2)
    assert nohup.process.poll() is None, 'it continues'
    nohup.process.terminate()
    assert nohup.close() == 75


@pytest.mark.slow
@pytest.mark.parametrize(
    ('tool', 'options'),
    [
        ('tools/data/check_videos.py', ()),
        ('tools/data/transcode.py', ('OUT/transcoded',)),
        ('tools/data/resize_videos.py', ('OUT/resized',)),
    ],
)
def test_data_tools_leave_nothing_half_done(
    tool: str, options: tuple[str, ...], tiny_videos: Path, tmp_path: Path
) -> None:
    videos = tmp_path / 'videos'
    videos.mkdir()
    for i in range(600):
        os.link(tiny_videos / f'{i % 6}.mp4', videos / f'{i}.mp4')
    temporary = tempfile.mkdtemp()  # a short path: sockets of processes lie there
    words = [word.replace('OUT', str(tmp_path / 'out')) for word in options]
    process = start(
        sys.executable, ROOT / tool, videos, *words, TMPDIR=temporary
    )  # fmt: skip
    time.sleep(8)
    process.send_signal(signal.SIGTERM)
    code, printed = finish(process, 60)
    assert 'Traceback' not in printed
    assert code in (143, -signal.SIGTERM, 0), printed
    assert not [path for path in (tmp_path / 'out').rglob('*') if 'part' in path.suffix]
    Path(temporary).rmdir()  # which fails if anything was left
