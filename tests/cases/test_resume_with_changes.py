"""W6 and W16: what changed since the checkpoint is logged with both values, and can take effect."""

import os
import runpy
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from mmtimesformer.checkpoints import load_torch
from mmtimesformer.cli import RunStopped
from mmtimesformer.engine.checkpointing.resumed_settings import check_optimizer
from tests.engine import conftest
from tests.engine.conftest import SCHEDULERS, At, Noise, Scaled, Train
from tests.tools import conftest as of_tools

train = conftest.train
tiny_config = of_tools.tiny_config
COSINE: list[dict[str, Any]] = [
    {'type': 'LinearLR', 'start_factor': 0.1, 'end': 1, 'convert_to_iter_based': True},
    {
        'type': 'CosineAnnealingLR', 'begin': 1, 'end': 3, 'eta_min': 1e-4,
        'convert_to_iter_based': True,
    },
]  # fmt: skip
PLATEAU: list[dict[str, Any]] = [{'type': 'ReduceOnPlateauLR', 'monitor': 'mean_acc'}]
LR = 'optim_wrapper.optimizer.lr'


class Given(Hook):
    """Options as ``--cfg-options`` gives them."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def before_run(self, runner: Any) -> None:
        runner.settings_given = self.keys


class Rates(Hook):
    """The learning rate and the betas of each group at each step."""

    priority = 'VERY_LOW'

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.seen: dict[int, list[tuple[float, ...]]] = {}

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.seen[runner.iter] = [
            (group['lr'], *group['betas']) for group in runner.optim_wrapper.optimizer.param_groups
        ]


def adamw(lr: float = 0.01, **settings: Any) -> dict[str, Any]:
    return {'optimizer': {'type': 'AdamW', 'lr': lr, **settings}}


def stop(train: Train, step: int, *hooks: Hook, **how: Any) -> None:
    with pytest.raises(RunStopped):
        train(At(step, lambda _: os.kill(os.getpid(), signal.SIGTERM)), *hooks, **how)


@pytest.mark.parametrize('schedulers', [SCHEDULERS, COSINE, []], ids=['steps', 'cosine', 'none'])
@pytest.mark.parametrize('step', [3, 8, 14])
def test_a_given_learning_rate_is_that_of_a_training_that_began_with_it(
    train: Train, tmp_path: Path, schedulers: Any, step: int, capsys: pytest.CaptureFixture
) -> None:
    paramwise = {'custom_keys': {'layers.0': {'lr_mult': 0.25}}}
    how: dict[str, Any] = {'schedulers': schedulers}
    whole, resumed = Rates(), Rates()
    train(
        whole,
        work_dir=tmp_path / 'whole',
        optim={**adamw(0.002), 'paramwise_cfg': paramwise},
        **how,
    )
    stop(train, step, optim={**adamw(), 'paramwise_cfg': paramwise}, **how)
    train(
        resumed, Given(LR), optim={**adamw(0.002), 'paramwise_cfg': paramwise}, resume=True, **how
    )
    assert list(resumed.seen) == list(range(step + 1, 18))
    for number, groups in resumed.seen.items():
        assert groups == [pytest.approx(group, rel=1e-9) for group in whole.seen[number]]
    output = capsys.readouterr().out
    assert (
        f'{LR}: 0.0005 to 0.002 in the config, 0.0025 to 0.01 in the checkpoint. The conf' in output
    )


def test_a_changed_setting_that_was_not_given_is_logged_with_both_values(
    train: Train, capsys: pytest.CaptureFixture
) -> None:
    stop(train, 8, optim={'type': Scaled, **adamw()}, schedulers=COSINE)
    rates = Rates()
    changed = [COSINE[0], {**COSINE[1], 'eta_min': 1e-5, 'end': 4}]
    settings = adamw(0.002, weight_decay=0.1, betas=(0.8, 0.99), eps=1e-6)

    class Growing(Scaled):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.loss_scaler.set_growth_interval(9)

    train(rates, optim={'type': Growing, **settings}, schedulers=changed, resume=True)
    output = capsys.readouterr().out
    for sentence in (
        f'{LR}: 0.002 in the config, 0.01 in the checkpoint. The checkpoint',
        'optim_wrapper.optimizer.weight_decay: 0.1 in the config, 0.01 in the checkpoint',
        'optim_wrapper.optimizer.betas: [0.8, 0.99] in the config, [0.9, 0.999] in the checkpoint',
        'optim_wrapper.optimizer.eps: 1e-06 in the config, 1e-08 in the checkpoint',
        'param_scheduler.1.eta_min: 1e-05 in the config, 0.0001 in the checkpoint',
        'param_scheduler.1.T_max: 18 in the config, 12 in the checkpoint',
        'optim_wrapper.loss_scale.growth_interval: 9 in the config, 4 in the checkpoint',
        'give it by --cfg-options together with --resume',
    ):
        assert sentence in output
    assert rates.seen[17][0][0] == pytest.approx(1e-4, abs=2e-4)  # the old schedule's end


def test_a_resumed_training_without_changes_logs_none(
    train: Train, capsys: pytest.CaptureFixture
) -> None:
    stop(train, 8)
    train(resume=True)
    output = capsys.readouterr().out
    assert 'in the checkpoint' not in output
    assert 'is not the one' not in output


def test_other_given_settings_take_effect_and_no_further_ones(train: Train, tmp_path: Path) -> None:
    momenta = [{'type': 'LinearMomentum', 'start_factor': 0.5, 'by_epoch': False, 'end': 9}]
    how: dict[str, Any] = {'schedulers': [*SCHEDULERS, *momenta]}
    whole, resumed = Rates(), Rates()
    train(whole, work_dir=tmp_path / 'whole', optim=adamw(betas=(0.8, 0.99)), **how)
    stop(train, 5, optim=adamw(), **how)
    given = Given('optim_wrapper.optimizer.betas')
    runner = train(
        resumed, given, optim=adamw(0.7, betas=(0.8, 0.99), weight_decay=0.3), resume=True, **how
    )
    for number, groups in resumed.seen.items():
        assert groups[0][1:] == pytest.approx(whole.seen[number][0][1:], rel=1e-9)
    assert runner.optim_wrapper.optimizer.param_groups[0]['weight_decay'] == 0.01


def test_a_given_scheduler_is_replayed(train: Train, tmp_path: Path) -> None:
    changed = [COSINE[0], {**COSINE[1], 'eta_min': 1e-3}]
    whole, resumed = Rates(), Rates()
    train(whole, work_dir=tmp_path / 'whole', schedulers=changed)
    stop(train, 8, schedulers=COSINE)
    train(resumed, Given('param_scheduler.1.eta_min'), schedulers=changed, resume=True)
    for number, groups in resumed.seen.items():
        assert groups[0][0] == pytest.approx(whole.seen[number][0][0], rel=1e-9)


@pytest.mark.parametrize('other', [COSINE[:1], [*COSINE, SCHEDULERS[1]], SCHEDULERS, []])
def test_schedulers_of_other_kinds_are_not_mixed_with_the_state_of_the_old_ones(
    train: Train, tmp_path: Path, other: Any, capsys: pytest.CaptureFixture
) -> None:
    """MMEngine loads the state of one kind into another without a word."""
    whole, resumed = Rates(), Rates()
    train(whole, work_dir=tmp_path / 'whole', schedulers=other)
    stop(train, 8, schedulers=COSINE)
    stop(train, 13, resumed, schedulers=other, resume=True)
    for number, groups in resumed.seen.items():
        assert groups[0][0] == pytest.approx(whole.seen[number][0][0], rel=1e-9)
    assert 'and not of the same types' in capsys.readouterr().out
    train(schedulers=other, resume=True)  # from whose state nothing of the old ones is left
    assert 'and not of the same types' not in capsys.readouterr().out


def test_under_a_plateau_the_rate_keeps_its_ratio(train: Train) -> None:
    stop(train, 14, val_interval=1, schedulers=PLATEAU)
    rates = Rates()
    train(rates, Given(LR), optim=adamw(0.002), val_interval=1, schedulers=PLATEAU, resume=True)
    assert rates.seen[15][0][0] in (pytest.approx(0.002), pytest.approx(0.0002))


def test_a_scaled_rate_follows_the_batch_when_scaling_is_on(train: Train, tmp_path: Path) -> None:
    how: dict[str, Any] = {
        'auto_scale_lr': {'enable': True, 'base_batch_size': 8},
        'schedulers': [],
    }
    stop(train, 5, **how)
    rates = Rates()
    train(rates, batch_size=8, resume=True, **how)
    assert {groups[0][0] for groups in rates.seen.values()} == {0.01}


def test_another_optimizer_or_other_groups_are_refused_in_a_sentence(train: Train) -> None:
    stop(train, 8)
    sgd = {'optimizer': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9}}
    with pytest.raises(
        ValueError, match=r'has no dampening.*momentum.*so it is no SGD; set optim_w'
    ):
        train(optim=sgd, resume=True)
    paramwise = {'custom_keys': {'layers.0': {'lr_mult': 0.25}}}
    with pytest.raises(ValueError, match=r'4 parameters in 1 groups .* makes 4 in 4; set'):
        train(optim={**adamw(), 'paramwise_cfg': paramwise}, resume=True)


@pytest.mark.parametrize('wrapper', [Scaled, 'mmtimesformer.Bfloat16OptimWrapper', 'OptimWrapper'])
def test_the_precision_may_change(train: Train, wrapper: Any) -> None:
    """As the message of a training that diverged advises."""
    stop(train, 8, optim={'type': Scaled})
    assert train(optim={'type': wrapper}, resume=True).epoch == 3


class Fewer(Noise):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize('accumulate', [1, 4])
@pytest.mark.parametrize('size', [5, 13, 40])
def test_a_list_that_shrank_or_grew_is_logged_and_trained_on(
    train: Train, tmp_path: Path, size: int, accumulate: int, capsys: pytest.CaptureFixture
) -> None:
    """Four of six steps of the second epoch are done; an epoch of any length is two thirds done."""
    optim = {'accumulative_counts': accumulate}
    stop(train, 9, schedulers=COSINE, optim=optim)
    done = load_torch(tmp_path / 'work/mid_epoch.pth')['meta']['iter']
    rates = Rates()
    runner = train(rates, dataset=Fewer(size), resume=True, schedulers=COSINE, optim=optim)
    steps = -(-size // 4)
    output = capsys.readouterr().out
    assert f'of a training on 22 videos, and now there are {size}: an epoch has {steps} ' in output
    begun = (done - 6) * steps // 6
    assert runner.iter == done + 2 * steps - begun == runner.max_iters
    assert len(rates.seen) == 2 * steps - begun
    whole = Rates()
    train(whole, dataset=Fewer(size), work_dir=tmp_path / 'whole', schedulers=COSINE, optim=optim)
    for back in range(1, len(rates.seen) + 1):  # the schedule follows the epochs
        now, ever = rates.seen[runner.iter - back], whole.seen[3 * steps - back]
        assert now[0][0] == pytest.approx(ever[0][0], rel=1e-9)


@pytest.mark.parametrize('batch', [1, 3, 8, 22])
def test_another_batch_size_trains_on_to_the_end(
    train: Train, batch: int, capsys: pytest.CaptureFixture
) -> None:
    stop(train, 9)
    runner = train(batch_size=batch, resume=True)
    steps = -(-22 // batch)
    begun = 16 // batch  # videos of the second epoch
    assert runner.iter == 10 + 2 * steps - begun == runner.max_iters
    output = capsys.readouterr().out
    assert f'A step had 4 videos in the checkpoint, and now has {batch}: ' in output
    assert (f'{16 % batch} videos of this epoch come twice' in output) == (16 % batch > 0)


def test_a_list_of_the_same_length_with_another_content_is_logged(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    class Listed(Noise):
        ann_file = str(tmp_path / 'train.txt')

    (tmp_path / 'train.txt').write_text('a.mp4 0\nb.mp4 1\n')
    stop(train, 9, dataset=Listed())
    stop(train, 12, dataset=Listed(), resume=True)
    assert 'videos as in the checkpoint' not in capsys.readouterr().out
    (tmp_path / 'train.txt').write_text('a.mp4 1\nb.mp4 0\n')
    train(dataset=Listed(), resume=True)
    assert 'has 22 videos as in the checkpoint, but other videos' in capsys.readouterr().out


def test_seeds_are_those_of_the_checkpoint_and_that_is_logged(
    train: Train, capsys: pytest.CaptureFixture
) -> None:
    how: dict[str, Any] = {'sampler': {'type': 'DefaultSampler', 'shuffle': True, 'seed': 5}}
    stop(train, 9, seed=3, **how)
    how['sampler']['seed'] = 6
    train(seed=4, resume=True, **how)
    output = capsys.readouterr().out
    assert (
        'train_dataloader.sampler.seed: 6 in the config, 5 in the checkpoint. The check' in output
    )
    assert 'random seed in the checkpoint "3" is different from the value in' in output


def test_nothing_left_to_train_is_said(train: Train, capsys: pytest.CaptureFixture) -> None:
    train()
    capsys.readouterr()
    train(train_cfg={'max_epochs': 2}, resume=True)
    assert 'has 3 epochs, and train_cfg.max_epochs=2; set it higher' in capsys.readouterr().out


def test_a_longer_training_trains_longer(train: Train) -> None:
    train()
    assert train(train_cfg={'max_epochs': 5}, resume=True).iter == 30


def test_an_average_without_its_hook_is_logged(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    stop(train, 8)
    shutil.copytree(tmp_path / 'work', tmp_path / 'other')
    train(ema=False, resume=True)
    assert 'the config has no EMAHook: the training resumes from the av' in capsys.readouterr().out
    train(work_dir=tmp_path / 'other', resume=True)
    assert 'has no EMAHook' not in capsys.readouterr().out
    assert torch.is_tensor(
        load_torch(tmp_path / 'other/epoch_3.pth')['state_dict']['layers.0.bias']
    )


def test_the_command_line_changes_a_resumed_training_and_a_changed_head_is_refused(
    tiny_config: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """By ``tools/train.py`` with ``--resume`` and ``--cfg-options``, on real videos."""
    train_py = runpy.run_path(str(of_tools.TOOLS / 'train.py'))['main']
    how = [str(tiny_config), '--work-dir', str(tmp_path / 'work'), '--no-validate']
    assert train_py(how) == 0
    assert (
        train_py([*how, '--resume', '--cfg-options', 'train_cfg.max_epochs=2', f'{LR}=1e-5']) == 0
    )
    output = capfd.readouterr().out
    assert (
        f"{LR}: 1e-05 in the config, 0.01 in the checkpoint. The config's takes effect." in output
    )
    saved = load_torch(tmp_path / 'work/epoch_2.pth')
    assert saved['optimizer']['param_groups'][0]['initial_lr'] == 1e-5
    changed = ['--resume', '--cfg-options', 'model.cls_head.num_classes=3']
    assert train_py([*how, *changed]) == 1
    words = r'fc_cls.weight is (2, 24) there and (3, 24) in the model, model.cls_head.num_classes'
    assert words in capfd.readouterr().err


@pytest.mark.parametrize('kind', ['Adam', 'NAdam', 'RAdam'])
def test_an_optimizer_whose_settings_have_the_same_names_is_refused_too(kind: str) -> None:
    weights = [torch.nn.Parameter(torch.ones(2))]
    saved = {
        'optimizer': torch.optim.AdamW(weights).state_dict(),
        'meta': {'cfg': "optim_wrapper = dict(optimizer=dict(type='AdamW', lr=0.01))"},
    }

    def runner(name: str) -> Any:
        wrapper = OptimWrapper(getattr(torch.optim, name)(weights))
        cfg = Config({'optim_wrapper': {'optimizer': {'type': name}}})
        return SimpleNamespace(optim_wrapper=wrapper, cfg=cfg)

    with pytest.raises(ValueError, match=f"with AdamW, and the config has .*='{kind}'; set optim"):
        check_optimizer(runner(kind), saved)
    check_optimizer(runner('AdamW'), saved)
