"""At every moment there is a whole checkpoint, also when the disk is full or the process is killed.

The slow tests kill many times; the fast ones a few.
"""

import contextlib
import errno
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner.checkpoint import save_checkpoint

from mmtimesformer.checkpoints import load_torch, read_file
from mmtimesformer.engine.checkpointing.atomic_backend import AtomicBackend
from mmtimesformer.engine.checkpointing.checkpoint_hook import AtomicCheckpointHook
from mmtimesformer.engine.checkpointing.resume import corruption_of, latest_valid_checkpoint
from mmtimesformer.engine.checkpointing.safe_loading import load_from_local
from mmtimesformer.engine.distributed.sharded_checkpoint import write_shards
from tests.engine.conftest import At, Train, assert_equal, whole_state

ROOT = Path(__file__).resolve().parents[3]

# Python 3.12 warns of forks with threads; these children only write files, and are killed.
pytestmark = pytest.mark.filterwarnings('ignore:This process .* is multi-threaded')


class LogList(list):
    """A logger that keeps its messages."""

    info = warning = list.append


class SavingRunner:
    """As much of a Runner as the hook needs, that saves ten megabytes at each step."""

    _load_from = None
    _resume = False
    hooks = ()

    def __init__(self, work_dir: Path, shares: bool = False) -> None:
        self.work_dir = str(work_dir)
        self.shares = shares
        self.message_hub = MessageHub('saving')
        self.logger = LogList()
        newest = latest_valid_checkpoint(work_dir, pytest.fail)
        saved = load_from_local(newest) if newest else {}
        self.iter = saved.get('iter', 0)
        if saved:
            self.message_hub.load_state_dict(saved['message_hub'])

    def save_checkpoint(self, out_dir: str, name: str, *_: Any, **__: Any) -> None:
        weights = torch.full((2_500_000,), float(self.iter))
        parts: dict[str, Any] = {'state_dict': {'w': weights}}
        if self.shares:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # torch's own, of a process that is alone
                parts = write_shards(parts, Path(out_dir, name))
        hub = self.message_hub.state_dict()
        save_checkpoint({'iter': self.iter, 'message_hub': hub, **parts}, f'{out_dir}/{name}')


def save_for_ever(work_dir: Path, results: Connection, shares: bool) -> None:
    """Save at each step and keep one checkpoint; send the number of each saved step."""
    runner = SavingRunner(work_dir, shares)
    hook = AtomicCheckpointHook(by_epoch=False, interval=1, max_keep_ckpts=1)
    hook.before_train(runner)
    assert not half_written(work_dir)  # swept
    results.send(runner.iter)
    while True:
        runner.iter += 1
        hook._save_checkpoint_with_step(runner, runner.iter, {'epoch': 0, 'iter': runner.iter})
        results.send(runner.iter)


def half_written(work_dir: Path) -> bool:
    """Whether there is a file that is not whole, or shares of a checkpoint that is not there."""
    shares = [path.name.rsplit('.', 2)[0] for path in work_dir.glob('*.shares')]
    names = {path.name for path in work_dir.glob('*.pth')}
    return bool(list(work_dir.glob('.*.part'))) or not set(shares) <= names


def kill_while_saving(work_dir: Path, kills: int, shares: bool = False) -> tuple[int, int]:
    """Kill a process that saves all the time; return how often within a file, and the losses.

    After each kill a whole checkpoint must be found, no older than the last one that was reported
    as saved, and no half file may stand under a final name.
    """
    processes, moments = multiprocessing.get_context('fork'), random.Random(0)
    reported = partial = lost = 0
    work_dir.mkdir()
    for _ in range(kills):
        receiver, sender = processes.Pipe(duplex=False)
        process = processes.Process(target=save_for_ever, args=(work_dir, sender, shares))
        process.start()
        sender.close()
        assert receiver.poll(60) and receiver.recv() >= reported
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                reported = receiver.recv()
        receiver.close()
        partial += half_written(work_dir)
        newest = latest_valid_checkpoint(work_dir, pytest.fail)
        lost += newest is None and reported > 0
        for path in work_dir.glob('*.pth'):
            whole = read_file(path).checkpoint
            assert torch.equal(whole['state_dict']['w'], torch.full((2_500_000,), whole['iter']))
        lost += newest is not None and load_torch(newest)['iter'] < reported
        assert len(list(work_dir.glob('*.pth'))) <= 2
    return partial, lost


@pytest.mark.parametrize('shares', [False, True], ids=['whole', 'shares'])
def test_a_kill_at_any_moment_leaves_the_last_checkpoint_whole(
    tmp_path: Path, shares: bool
) -> None:
    _, lost = kill_while_saving(tmp_path / 'work', 10, shares)
    assert lost == 0


@pytest.mark.slow
@pytest.mark.parametrize('shares', [False, True], ids=['whole', 'shares'])
def test_two_hundred_kills_lose_nothing(tmp_path: Path, shares: bool) -> None:
    partial, lost = kill_while_saving(tmp_path / 'work', 200, shares)
    print(f'{partial} of 200 kills hit a file half written; lost {lost}')
    assert lost == 0
    assert partial >= 20  # else the test does not test it


def test_a_new_checkpoint_is_whole_before_the_old_one_goes(train: Train, tmp_path: Path) -> None:
    """With one kept, two stand there for a moment, and the note never names a missing one."""
    seen = []

    def look(runner: Any) -> None:
        noted = (tmp_path / 'work/last_checkpoint').read_text()
        seen.append((Path(noted).is_file(), sorted(p.name for p in tmp_path.glob('work/epoch*'))))

    replace = os.replace

    def looking_replace(source: Any, target: Any) -> None:
        if str(target).endswith('epoch_2.pth'):
            look(None)
        replace(source, target)
        if str(target).endswith('epoch_2.pth'):
            look(None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, 'replace', looking_replace)
        train(checkpoint={'max_keep_ckpts': 1})
    assert seen == [(True, ['epoch_1.pth']), (True, ['epoch_1.pth', 'epoch_2.pth'])]
    assert sorted(path.name for path in tmp_path.glob('work/epoch*')) == ['epoch_3.pth']


def test_the_best_one_goes_only_when_a_better_one_is_there(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []
    remove = AtomicBackend.remove

    def looking_remove(self: AtomicBackend, path: str) -> None:
        removed.append(sorted(p.name for p in tmp_path.glob('work/best*')))
        remove(self, path)

    monkeypatch.setattr(AtomicBackend, 'remove', looking_remove)
    train(val_interval=1, checkpoint={'save_best': 'mean_acc'})
    assert removed and all(len(best) == 2 for best in removed)
    assert len(list(tmp_path.glob('work/best*'))) == 1


@pytest.mark.parametrize('damage', ['cut', 'byte', 'empty', 'gone'])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_logs_it(
    train: Train, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture
) -> None:
    train()
    shutil.copytree(tmp_path / 'work', tmp_path / 'damaged')
    newest = tmp_path / 'damaged/epoch_3.pth'
    content = bytearray(newest.read_bytes())
    if damage == 'cut':
        content = content[: len(content) // 2]
    elif damage == 'byte':
        content[len(content) // 2] ^= 1
    elif damage == 'empty':
        content.clear()
    newest.write_bytes(content)
    if damage == 'gone':
        newest.unlink()
        (tmp_path / 'work/epoch_3.pth').rename(tmp_path / 'work/kept.pth')
    capsys.readouterr()
    train(work_dir=tmp_path / 'damaged', resume=True)
    output = capsys.readouterr().out
    assert 'damaged/epoch_2.pth' in output
    assert damage == 'gone' or 'damaged/epoch_3.pth is damaged' in output
    if damage == 'gone':
        (tmp_path / 'work/kept.pth').rename(tmp_path / 'work/epoch_3.pth')
    assert_equal(whole_state(tmp_path / 'work/epoch_3.pth'), whole_state(newest))


def test_only_damaged_checkpoints_are_an_error_not_a_new_start(
    train: Train, tmp_path: Path
) -> None:
    train(train_cfg={'max_epochs': 1, 'val_interval': 1})
    (tmp_path / 'work/epoch_1.pth').write_bytes(b'PK')
    with pytest.raises(ValueError, match='every checkpoint in .* is damaged .*--resume'):
        train(resume=True)


def test_the_newest_is_found_without_its_note(train: Train, tmp_path: Path) -> None:
    train()
    (tmp_path / 'work/last_checkpoint').unlink()
    assert latest_valid_checkpoint(tmp_path / 'work', pytest.fail) == f'{tmp_path}/work/epoch_3.pth'


@pytest.mark.parametrize(
    'note',
    [b'', b'\0\0\0', b'\xff\xfe', b'a' * 5000, b'a\nb', b'/etc/passwd', b'/dev/zero', b'pipe'],
)
def test_a_note_that_names_no_checkpoint_is_passed_over(
    train: Train, tmp_path: Path, note: bytes
) -> None:
    """A disk may have lost its content, or somebody have written it; a pipe is not waited for."""
    train(train_cfg={'max_epochs': 1})
    os.mkfifo(tmp_path / 'work/pipe')
    (tmp_path / 'work/last_checkpoint').write_bytes(note)
    output: list[str] = []
    newest = latest_valid_checkpoint(tmp_path / 'work', output.append)
    assert newest == f'{tmp_path}/work/epoch_1.pth'
    assert len(output) == (note in (b'/etc/passwd', b'/dev/zero', b'pipe'))


def test_a_hostile_checkpoint_that_is_noted_is_refused(train: Train, tmp_path: Path) -> None:
    class Program:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / 'executed'),)

    train(train_cfg={'max_epochs': 1})
    torch.save({'state_dict': {}, 'meta': Program()}, tmp_path / 'other.pth')
    (tmp_path / 'work/last_checkpoint').write_text(str(tmp_path / 'other.pth'))
    with pytest.raises(ValueError, match=r'other\.pth is refused: it asks for \w+\.mkdir'):
        train(resume=True)
    assert not (tmp_path / 'executed').exists()


def test_a_score_that_is_not_there_is_an_error_that_lists_the_others(
    train: Train, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"save_best='acc/topp1' is none of .*: mean_acc"):
        train(val_interval=1, checkpoint={'save_best': 'acc/topp1', 'rule': 'greater'})
    assert (tmp_path / 'work/epoch_1.pth').is_file()


class FullDisk:
    """A disk on which files of the given ending cannot be written, while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
        self.full, self.attempts = False, 0
        write = Path.write_bytes

        def write_bytes(path: Path, content: bytes) -> int:
            if self.full and ending in path.name:
                self.attempts += 1
                write(path, content[:1000])
                raise OSError(errno.ENOSPC, 'No space left on device', str(path))
            return write(path, content)

        monkeypatch.setattr(Path, 'write_bytes', write_bytes)

    def fill(self, _runner: Any = None) -> None:
        self.full = True

    def clear(self, _runner: Any = None) -> None:
        self.full = False


def test_a_full_disk_is_outlived_and_tried_again(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    train(work_dir=tmp_path / 'whole')
    disk = FullDisk(monkeypatch, '.pth')
    there = []

    def look_at(runner: Any) -> None:
        assert (tmp_path / 'work/last_checkpoint').read_text() == f'{tmp_path}/work/epoch_1.pth'
        assert runner.message_hub.get_info('last_ckpt') == f'{tmp_path}/work/epoch_1.pth'
        there.append(sorted(p.name for p in tmp_path.glob('work/*.pth')))

    look = At(13, look_at)  # epoch 2 ended with step 12
    capsys.readouterr()
    train(
        At(7, disk.fill),
        look,
        At(15, disk.clear),
        checkpoint={'max_keep_ckpts': 1, 'retry_interval': 2},
        val_interval=1,
    )
    output = capsys.readouterr().out
    assert disk.attempts == 2  # after epoch 2, and two steps later; then it is not full any more
    assert 'epoch_2.pth could not be written: [Errno 28] No space left on device' in output
    assert f'keeps {tmp_path}/work/epoch_1.pth' in output
    assert there == [['epoch_1.pth']]
    assert sorted(p.name for p in tmp_path.glob('work/*.pth')) == ['epoch_3.pth']
    assert not list(tmp_path.glob('work/.*.part'))


def test_last_checkpoint_stays_when_the_disk_is_full_under_it(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is written, and its note is not: the one before is the last one still."""
    write, noted = Path.write_text, []

    def write_text(path: Path, text: str, *args: Any, **kwargs: Any) -> int:
        if 'last_checkpoint' in path.name and text.endswith('epoch_2.pth'):
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        return write(path, text, *args, **kwargs)

    def note(runner: Any) -> None:
        noted.append(
            (
                (tmp_path / 'work/last_checkpoint').read_text(),
                runner.message_hub.get_info('last_ckpt'),
            )
        )

    monkeypatch.setattr(Path, 'write_text', write_text)
    train(At(13, note), checkpoint={'retry_interval': 100})
    assert noted == [(f'{tmp_path}/work/epoch_1.pth',) * 2]
    assert (tmp_path / 'work/last_checkpoint').read_text() == f'{tmp_path}/work/epoch_3.pth'


SMALL_DISK = """
import sys
from pathlib import Path
from mmtimesformer.engine.runner import Runner
from tests.engine.conftest import At, Guess, Noise

disk = Path(sys.argv[1])

def fill(runner):
    with (disk / 'ballast').open('wb', buffering=0) as file:
        try:
            while file.write(bytes(100)):
                pass
        except OSError:
            print('it is full')

Runner(
    model=Guess(), work_dir=str(disk / 'work'), cfg={}, randomness=dict(seed=3),
    train_dataloader=dict(
        dataset=Noise(), sampler=dict(type='DefaultSampler', shuffle=True), batch_size=4,
        num_workers=0),
    train_cfg=dict(by_epoch=True, max_epochs=3), optim_wrapper=dict(optimizer=dict(type='AdamW')),
    default_hooks=dict(checkpoint=dict(
        type='CheckpointHook', interval=1, max_keep_ckpts=1, retry_interval=2)),
    custom_hooks=[At(7, fill), At(15, lambda _: (disk / 'ballast').unlink())],
).train()
print('left', sorted(path.name for path in disk.glob('work/*') if path.suffix in ('.pth', '.part')))
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_outlived(tmp_path: Path) -> None:
    """One of 600 kB in memory, which only this process sees."""
    (tmp_path / 'train.py').write_text(SMALL_DISK)
    (tmp_path / 'disk').mkdir()
    alone = 'unshare', '--user', '--map-root-user', '--mount', 'sh', '-c'
    mount = 'mount -t tmpfs -o size=600k tmpfs "$0"'
    disk = str(tmp_path / 'disk')
    if not shutil.which('unshare') or subprocess.run([*alone, mount, disk], check=False).returncode:
        pytest.skip('this machine lets nobody mount a disk')
    done = subprocess.run(
        [*alone, f'{mount} && exec "$@"', disk, sys.executable, tmp_path / 'train.py', disk],
        capture_output=True, text=True, check=False,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'it is full' in done.stdout
    assert 'epoch_2.pth could not be written: [Errno 28] No space left on device' in done.stdout
    assert "left ['epoch_3.pth']" in done.stdout
    assert 'Traceback' not in done.stdout + done.stderr


def test_the_last_checkpoint_is_waited_for_and_then_missed_aloud(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, '.pth')
    with pytest.raises(OSError, match='the training is done, and its last checkpoint could not'):
        train(At(17, disk.fill), checkpoint={'patience': 0.5})
    assert disk.attempts > 2


def test_a_full_disk_under_the_best_checkpoint_leaves_the_one_before(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, 'best')
    how = {'val_interval': 1, 'checkpoint': {'save_best': 'mean_acc'}}
    runner = train(At(7, disk.fill), **how)
    best = [path.name for path in tmp_path.glob('work/best*')]
    assert disk.attempts >= 1
    assert best == ['best_mean_acc_epoch_1.pth']
    assert runner.message_hub.get_info('best_ckpt') == f'{tmp_path}/work/{best[0]}'


def test_a_full_disk_under_curves_and_log_is_outlived(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    def fill(runner: Any) -> None:
        monkeypatch.setattr('mmengine.visualization.vis_backend.dump', full)
        for handler in runner.logger.handlers:
            if hasattr(handler, 'baseFilename'):
                monkeypatch.setattr(handler.stream, 'write', full, raising=False)

    train(At(7, fill))
    out, err = capfd.readouterr()
    assert out.count('LocalVisBackend could not write ([Errno 28]') == 1
    assert err.count('.log cannot be written: [Errno 28]') == 1
    assert 'Traceback' not in err
    assert (tmp_path / 'work/epoch_3.pth').is_file()


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    backend = AtomicBackend()
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    backend.put(b'hello', tmp_path / 'pipe')
    assert os.read(reader, 10) == b'hello'
    os.close(reader)
    assert (tmp_path / 'pipe').is_fifo()
    backend.put_text('hällo', tmp_path / 'new/file')
    assert (tmp_path / 'new/file').read_text('utf-8') == 'hällo'


def test_a_named_checkpoint_with_a_flipped_bit_is_not_resumed(train: Train, tmp_path: Path) -> None:
    """Torch itself reads over it."""
    train()
    named = tmp_path / 'work/epoch_2.pth'
    content = bytearray(named.read_bytes())
    content[len(content) // 2] ^= 1
    named.write_bytes(content)
    with pytest.raises(ValueError, match='epoch_2.pth is damaged .*checksum.*name an earlier one'):
        train(work_dir=tmp_path / 'other', resume=True, load_from=str(named))


@pytest.mark.parametrize('where', range(0, 64, 3))
def test_a_bit_flipped_in_the_table_of_a_checkpoint_is_damage_or_none(
    tmp_path: Path, where: int
) -> None:
    """Whatever exception it surfaces as."""
    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': {'w': torch.ones(3)}}, path)
    whole = path.read_bytes()
    table = whole.index(b'PK\x01\x02')
    for bit in range(8):
        content = bytearray(whole)
        content[table + where] ^= 1 << bit
        path.write_bytes(content)
        assert isinstance(corruption_of(str(path)), str | None)
