"""The tools train, resume and test on real video files, alone and in several processes."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mmaction
import pytest
import torch

from mmtimesformer.checkpoints.torch_checkpoints import load_torch
from mmtimesformer.compat.data_samples import label_of, scores_of, view_scores_of

ROOT = Path(__file__).resolve().parents[2]
MMACTION2_TOOLS = Path(mmaction.__file__).parent / '.mim' / 'tools'


def run(*command: object, **environment: str) -> str:
    """Run a command as a user does, from a foreign folder, and return all that it printed."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_torch(path)['state_dict']


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / 'elsewhere'
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_train_move_resume_and_test(tools: Path, tiny_config: Path, elsewhere: Path) -> None:
    python, train, test = sys.executable, tools / 'train.py', tools / 'test.py'

    output = run(
        python, train, tiny_config, '--amp', 'bf16', '--seed', '7', '--auto-scale-lr', '--resume',
        '--cfg-options', 'optim_wrapper.accumulative_counts=2',
    )  # fmt: skip
    work_dir = elsewhere / 'work_dirs' / 'tiny'
    assert re.search(r'Nothing to resume in \S+work_dirs/tiny; starts from the beginning', output)
    assert 'lr 0.01 -> 0.005: one step sees 4 videos' in output
    assert 'System environment' not in output
    assert 'Warning' not in output
    assert load_torch(work_dir / 'epoch_1.pth')['meta']['seed'] == 7

    moved = shutil.move(work_dir, elsewhere / 'moved')
    output = run(
        python, train, tiny_config, '--work-dir', moved, '--resume', '--no-validate',
        '--cfg-options', 'train_cfg.max_epochs=2',
    )  # fmt: skip
    assert 'resumed epoch: 1, iter: 2' in output
    assert 'Epoch(val)' not in output
    trained = load_torch(moved / 'epoch_2.pth')
    assert trained['meta']['epoch'] == 2
    assert trained['meta']['seed'] == 7
    curve = trained['message_hub']['log_scalars']['train/loss']
    assert len(curve.log_history) == 4  # two epochs of two steps: the curve continued

    output = run(
        python, test, tiny_config, moved / 'epoch_2.pth', '--dump', 'result.pkl',
        '--show-dir', 'shown', '--interval', '2',
    )  # fmt: skip
    assert re.search(r'Epoch\(test\) \[3/3\]\s+acc/top1: \d', output)
    pictures = sorted(path.name for path in (elsewhere / 'shown').rglob('*.png'))
    assert [name[:14] for name in pictures] == ['000000_3_said_', '000002_5_said_']
    results = pickle.loads((elsewhere / 'result.pkl').read_bytes())
    assert [label_of(result) for result in results] == [1, 0, 1]
    for result in results:  # three crops of two classes, fused by the mean of their softmax
        fused = view_scores_of(result).softmax(1).mean(0)
        assert fused.tolist() == pytest.approx(scores_of(result).tolist(), abs=1e-6)

    top1 = re.search(r'acc/top1: ([\d.]+)', output).group(1)
    analysis = MMACTION2_TOOLS / 'analysis_tools'
    output = run(python, analysis / 'report_accuracy.py', '--preds=result.pkl', '--coefficients=1')
    assert f'Top 1 Accuracy: {top1}' in output
    output = run(python, analysis / 'eval_metric.py', tiny_config, 'result.pkl')
    again = re.search(r"'acc/top1': np.float64\(([\d.]+)\)", output).group(1)
    assert float(again) == pytest.approx(float(top1), abs=1e-4)


@pytest.mark.slow  # tests/cases/test_mmaction2_tools.py does it with the config of the demo
def test_mmaction2s_own_tools_train_resume_and_test(tiny_config: Path, elsewhere: Path) -> None:
    """With ``custom_imports`` of this package in the config, and nothing else."""
    train = MMACTION2_TOOLS / 'train.py'
    run(sys.executable, train, tiny_config, '--work-dir', 'work')
    output = run(
        sys.executable, train, tiny_config, '--work-dir', 'work', '--resume',
        '--cfg-options', 'train_cfg.max_epochs=2',
    )  # fmt: skip
    assert 'resumed epoch: 1' in output
    output = run(sys.executable, MMACTION2_TOOLS / 'test.py', tiny_config, 'work/epoch_2.pth')
    assert 'acc/top1' in output


def test_two_processes_on_cpus(tools: Path, tiny_config: Path, elsewhere: Path) -> None:
    output = run(
        'bash', tools / 'dist_train.sh', tiny_config, 2, '--work-dir', 'work', '--auto-scale-lr',
        PYTHON=sys.executable,
    )  # fmt: skip
    assert 'processes x videos x accumulated batches = 2 x 2 x 1' in output
    assert 'Epoch(train) [1][1/1]' in output  # four videos, two at a time, in two processes
    run(
        'bash', tools / 'dist_test.sh', tiny_config, 'work/epoch_1.pth', 2, '--dump', 'result.pkl',
        PYTHON=sys.executable,
    )  # fmt: skip
    results = pickle.loads((elsewhere / 'result.pkl').read_bytes())
    assert len(results) == 3  # an odd number, and none counted twice
    assert [tuple(view_scores_of(result).shape) for result in results] == [(3, 2)] * 3


@pytest.mark.skipif(sys.platform != 'linux', reason='lists its threads in /proc')
@pytest.mark.parametrize(
    'ends',
    [
        pytest.param('train_cfg.max_epochs=1', id='at its end'),
        pytest.param('optim_wrapper.optimizer.lr=-1', id='by an error'),
    ],
)
def test_a_run_ends_with_no_thread_of_gloo(tools: Path, tiny_config: Path, ends: str) -> None:
    """One that still let go of a tensor while Python ends would abort the process."""
    script = (
        'import sys, pathlib; sys.path.insert(0, sys.argv.pop(1)); import train; train.main();'
        'threads = pathlib.Path("/proc/self/task").glob("*/comm");'
        'print("threads:", {thread.read_text().strip() for thread in threads})'
    )
    output = run(
        sys.executable, '-c', script, tools, tiny_config, '--work-dir', tiny_config.parent / 'work',
        '--launcher', 'pytorch', '--cfg-options', ends,
        RANK='0', WORLD_SIZE='1', LOCAL_RANK='0', MASTER_ADDR='localhost', MASTER_PORT='0',
    )  # fmt: skip
    assert ('error:' in output) == ('-1' in ends)
    assert 'gloo' not in output.rpartition('threads:')[2]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(
    tools: Path, tiny_config: Path, elsewhere: Path
) -> None:
    """At the same total batch, on the same clips of the same videos."""
    options = [
        '--seed', '3', '--no-validate', '--cfg-options', 'train_cfg.max_epochs=2',
        'train_dataloader.sampler.shuffle=False',
        'train_dataloader.dataset.pipeline.1.test_mode=True',  # the middle, not a random clip
    ]  # fmt: skip
    run(
        sys.executable, tools / 'train.py', tiny_config, '--work-dir', 'one', *options,
        'train_dataloader.batch_size=4',
    )  # fmt: skip
    run(
        'bash', tools / 'dist_train.sh', tiny_config, 2, '--work-dir', 'two', *options,
        PYTHON=sys.executable,
    )  # fmt: skip
    one, two = weights(elsewhere / 'one/epoch_2.pth'), weights(elsewhere / 'two/epoch_2.pth')
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-5), name
