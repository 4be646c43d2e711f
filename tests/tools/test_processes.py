"""The same training in one process, in several, and on several machines; and what loses one."""

import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from tests.tools.running import children, finish, start, wait_for

TORCHRUN = sys.executable, '-m', 'mmtimesformer.engine.launch.torchrun', '--standalone'

# Sixteen clips in steps of eight: what one process sees in a step, n processes see together.
STEPS = """
import atexit, pathlib, sys
import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn
from mmtimesformer import TimeSformer
from mmtimesformer.engine.runner import Runner

class Clips(torch.utils.data.Dataset):
    metainfo = {}

    def __len__(self):
        return 16

    def __getitem__(self, index):
        # the clip is its own, the noise on it drawn again in each epoch
        clip = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(index))
        label = BaseDataElement(label=index % 2)
        return {'inputs': clip + 0.1 * torch.randn(3, 2, 16, 16), 'data_samples': label}

class Net(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = TimeSformer(
            num_frames=2, img_size=16, patch_size=8, embed_dims=24, num_layers=2, num_heads=2,
            drop_path_rate=0.0, temporal_init='random')
        self.head = nn.Linear(24, 2)

    def forward(self, inputs, data_samples, mode='tensor'):
        scores = self.head(self.backbone(torch.stack(list(inputs))))
        labels = torch.tensor([sample.label for sample in data_samples])
        return {'loss': nn.functional.cross_entropy(scores, labels)}

class Losses(Hook):
    seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().clone()
        dist.all_reduce(loss, 'mean')
        self.seen.append(loss.item())

threads = pathlib.Path('/proc/self/task')
atexit.register(lambda: print('threads', {p.read_text().strip() for p in threads.glob('*/comm')}))
processes = int(sys.argv[1])
runner = Runner(
    model=Net(), work_dir=sys.argv[2], launcher='pytorch' if processes > 1 else 'none', cfg={},
    train_dataloader=dict(
        dataset=Clips(), sampler=dict(type='DefaultSampler', shuffle=True),
        batch_size=8 // processes, num_workers=0),
    train_cfg=dict(by_epoch=True, max_epochs=2),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
    custom_hooks=[Losses()], randomness=dict(seed=3))
runner.train()
if dist.get_rank() == 0:
    torch.save(Losses.seen, sys.argv[3])
"""


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 4])
def test_several_processes_take_the_steps_of_one(tmp_path: Path, processes: int) -> None:
    """At the same total batch, with random augmentation: losses within 1e-5."""
    script = tmp_path / 'steps.py'
    script.write_text(STEPS)
    losses = {}
    running = {
        n: start(
            *(TORCHRUN if n > 1 else [sys.executable]),
            *(['--nproc-per-node', n] if n > 1 else []),
            script, n, tmp_path / f'work{n}', tmp_path / f'{n}.pt',
        )
        for n in (1, processes)
    }  # fmt: skip
    ends = {n: finish(process) for n, process in running.items()}
    for n, (code, output) in ends.items():
        assert code == 0, output
        losses[n] = torch.tensor(torch.load(tmp_path / f'{n}.pt'))
        assert 'gloo' not in output.partition('threads')[2], 'one may abort a process that is done'
    assert len(losses[1]) == 4
    assert losses[1].diff().abs().min() > 1e-3  # steps that do something
    assert (losses[1] - losses[processes]).abs().max() < 1e-5


WORKER = """
import os, signal, sys, time
from mmtimesformer.engine.launch.torchrun import stop_with_torchrun, report_stop_to_torchrun
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
signal.signal(signal.SIGUSR1, lambda number, frame: asked.append(number))
stop_with_torchrun()
print('started', os.getpid(), flush=True)
while not asked:
    time.sleep(0.02)
time.sleep(float(sys.argv[1]))  # saves
print('saved', flush=True)
sys.exit(report_stop_to_torchrun(75))
"""


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """Two processes under torchrun that save when they are asked to stop, with restarts left."""
    (tmp_path / 'worker.py').write_text(WORKER)
    process = start(
        *TORCHRUN, '--nproc-per-node', 2, '--max-restarts', 3, tmp_path / 'worker.py', 0.3
    )
    wait_for('started', process)
    wait_for('started', process)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
@pytest.mark.parametrize(
    'number', [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_stop_ends_with_its_code_and_nothing_is_started_again(
    two_workers: subprocess.Popen, number: signal.Signals
) -> None:
    os.kill(two_workers.pid, number)
    code, output = finish(two_workers, 30)
    assert code == 75, output
    assert output.count('saved') == 2
    assert 'started' not in output
    assert 'all 2 processes on this machine have stopped' in output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
def test_a_stop_that_torchrun_did_not_hear_is_no_failure(two_workers: subprocess.Popen) -> None:
    """As on the machines of a run of which only one received the signal."""
    for process in children(two_workers.pid):
        os.kill(process, signal.SIGUSR1)
    code, output = finish(two_workers, 30)
    assert code == 75, output
    assert 'started' not in output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
def test_processes_save_and_end_when_torchrun_is_killed(two_workers: subprocess.Popen) -> None:
    two_workers.kill()
    _, output = finish(two_workers, 30)  # that is, when all have ended
    assert output.count('saved') == 2


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_torch(path)['state_dict']


def largest_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 4])
def test_a_training_on_videos_learns_the_same_in_any_number_of_processes(
    tools: Path, tiny_config: Path, tmp_path: Path, processes: int
) -> None:
    """And every video of an odd number counts once in the test, in any number."""
    options = ['--seed', '3', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=3']
    one, several = tmp_path / 'one', tmp_path / 'several'
    for process in (
        start(
            sys.executable, tools / 'train.py', tiny_config, '--work-dir', one, *options,
            'train_dataloader.batch_size=4',
        ),
        start(
            'bash', tools / 'dist_train.sh', tiny_config, processes, '--work-dir', several,
            *options, f'train_dataloader.batch_size={4 // processes}', PYTHON=sys.executable,
        ),
    ):  # fmt: skip
        code, output = finish(process)
        assert code == 0, output
    assert largest_difference(one / 'epoch_3.pth', several / 'epoch_3.pth') < 1e-5
    code, output = finish(
        start(
            'bash', tools / 'dist_test.sh', tiny_config, several / 'epoch_3.pth', processes,
            '--dump', tmp_path / 'result.pkl', PYTHON=sys.executable,
        )
    )  # fmt: skip
    assert code == 0, output
    assert len(pickle.loads((tmp_path / 'result.pkl').read_bytes())) == 3


LONG = [
    '--seed', '5', '--deterministic', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=60',
    'model.backbone.drop_path_rate=0.2', 'default_hooks.checkpoint.interval=7',
]  # fmt: skip


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_videos: Path) -> Path:
    """The last checkpoint of a training in two processes that nothing disturbed."""
    from tests.tools.conftest import TEXT, TOOLS

    folder = tmp_path_factory.mktemp('undisturbed')
    config = folder / 'tiny.py'
    config.write_text(TEXT.replace('{videos}', str(tiny_videos)))
    code, output = finish(
        start(
            'bash', TOOLS / 'dist_train.sh', config, 2, '--work-dir', folder / 'work', *LONG,
            PYTHON=sys.executable,
        )
    )  # fmt: skip
    assert code == 0, output
    return folder / 'work/epoch_60.pth'


@pytest.mark.slow
def test_a_lost_process_ends_the_run_within_a_minute_with_the_reason(
    tools: Path, tiny_config: Path, tmp_path: Path
) -> None:
    process = start(
        'bash', tools / 'dist_train.sh', tiny_config, 2, '--work-dir', tmp_path / 'work', *LONG,
        'train_cfg.max_epochs=100000', PYTHON=sys.executable,
    )  # fmt: skip
    wait_for('[5][1/1]', process)
    lost = children(process.pid)[-1]
    began = time.monotonic()
    os.kill(lost, signal.SIGKILL)
    code, output = finish(process, 60)
    print(f'ended after {time.monotonic() - began:.1f} s')
    assert code == 1
    assert f'(pid {lost}) was killed by SIGKILL' in output, output


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_a_lost_process_is_started_again_and_the_training_is_the_undisturbed_one(
    tools: Path, tiny_config: Path, tmp_path: Path, undisturbed: Path, rank: int
) -> None:
    work_dir = tmp_path / 'work'
    process = start(
        'bash', tools / 'dist_train.sh', tiny_config, 2, '--work-dir', work_dir, '--resume', *LONG,
        PYTHON=sys.executable, MAX_RESTARTS='2',
    )  # fmt: skip
    for epoch in (10, 30):
        wait_for(f'Epoch(train) [{epoch}]', process)
        began = time.monotonic()
        os.kill(children(process.pid)[rank], signal.SIGKILL)
        wait_for('Resumes from', process)
        wait_for('Epoch(train)', process)
        print(f'trains again after {time.monotonic() - began:.1f} s')
    code, output = finish(process)
    assert code == 0, output
    assert largest_difference(undisturbed, work_dir / 'epoch_60.pth') == 0


def test_a_restart_without_resume_is_refused(tools: Path) -> None:
    code, output = finish(start('bash', tools / 'dist_train.sh', 'config.py', 2, MAX_RESTARTS='3'))
    assert code == 2
    assert 'add --resume' in output


def two_machines(
    tools: Path, config: Path, work_dir: Path, endpoint: str, *before: list[object]
) -> list[subprocess.Popen]:
    """Start a long training on two machines; wait until it takes steps."""
    machines = [
        start(
            *prefix, 'bash', tools / 'dist_train.sh', config, 1, '--work-dir', work_dir,
            '--no-validate', '--cfg-options', 'train_cfg.max_epochs=100000',
            'default_hooks.checkpoint.interval=100000',
            NNODES='2', RDZV_ENDPOINT=endpoint, RDZV_ID='lost', PYTHON=sys.executable,
        )
        for prefix in before
    ]  # fmt: skip
    given_up = time.monotonic() + 200
    while not any('Epoch(train)' in log.read_text() for log in work_dir.glob('*/*.log')):
        assert time.monotonic() < given_up
        time.sleep(0.5)
    return machines


@pytest.mark.slow
@pytest.mark.parametrize('lost', [0, 1])
@pytest.mark.parametrize('whole', [True, False])
def test_a_machine_whose_processes_die_ends_the_run_within_a_minute(
    tools: Path, tiny_config: Path, tmp_path: Path, lost: int, whole: bool
) -> None:
    """All at once, or torchrun alone: then the rest of them, on both machines, save and end."""
    port = 20000 + os.getpid() % 20000
    machines = two_machines(tools, tiny_config, tmp_path / 'work', f'localhost:{port}', [], [])
    if whole:
        machines[lost].send_signal(signal.SIGSTOP)  # it must not see what becomes of the others
        for process in children(machines[lost].pid):
            os.kill(process, signal.SIGKILL)
    machines[lost].kill()
    began = time.monotonic()
    code, output = finish(machines[1 - lost], 60)
    print(f'ended after {time.monotonic() - began:.1f} s')
    finish(machines[lost])
    if whole:
        assert code == 1
        assert 'error: another process of this run on the machine' in output
        assert re.search(r'error: (process \d|the machines of this run do not reach)', output)
    else:
        assert code == 75
        assert (tmp_path / 'work/mid_epoch.pth').exists()


@pytest.fixture
def network() -> Iterator[list[str]]:
    """Two network namespaces that a cable joins: machines to the network, if not to the disk."""
    names = [f'mmt{os.getpid()}{side}' for side in 'ab']
    commands = [f'ip netns add {name}' for name in names] + [
        f'ip link add veth0 netns {names[0]} type veth peer name veth0 netns {names[1]}',
        *(f'ip -n {name} addr add 10.77.0.{i}/24 dev veth0' for i, name in enumerate(names, 1)),
        *(f'ip -n {name} link set {one} up' for name in names for one in ('lo', 'veth0')),
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield names
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f'no network namespaces here: {error}')
    finally:
        if shutil.which('ip'):
            for name in names:
                subprocess.run(['ip', 'netns', 'del', name], check=False, capture_output=True)


@pytest.mark.slow
def test_machines_that_a_cut_cable_parts_miss_each_other_within_a_minute(
    tools: Path, tiny_config: Path, tmp_path: Path, network: list[str]
) -> None:
    """No connection is closed: without a heartbeat both would wait for half an hour."""
    machines = two_machines(
        tools, tiny_config, tmp_path / 'work', '10.77.0.1:29400',
        *(['ip', 'netns', 'exec', name, 'env', 'GLOO_SOCKET_IFNAME=veth0'] for name in network),
    )  # fmt: skip
    subprocess.run(['ip', '-n', network[1], 'link', 'set', 'veth0', 'down'], check=True)
    began = time.monotonic()
    for machine in machines:
        code, output = finish(machine, 60)
        print(f'ended after {time.monotonic() - began:.1f} s')
        assert code == 1
        assert 'has not been heard of for 30 s' in output
        assert 'out of memory' not in output
