"""Imbalanced classes: balanced sampling, class weights, warnings, and resuming with each."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmtimesformer.checkpoints import load_torch
from mmtimesformer.config.find import find_config
from mmtimesformer.config.validate import check_config
from mmtimesformer.datasets.preparation.moving_shapes import (
    AXES,
    CLASSES,
    MOTIONS,
    Settings,
    make_moving_shapes,
)
from mmtimesformer.engine.class_balance import note_on_imbalance, set_list_statistics
from mmtimesformer.engine.runner import Runner
from tests.cases.test_multi_label import quiet_process, tool
from tests.cases.test_resume_with_changes import stop
from tests.engine import conftest
from tests.engine.conftest import Noise, Train, assert_equal, whole_state
from tests.tools.conftest import TEXT
from tests.tools.running import finish, start

train = conftest.train
COUNTS = {0: 20, 1: 2}  # of classes 'wave' and 'clap'
SAMPLER = "train_dataloader['sampler']['type'] = 'mmtimesformer.ClassBalancedSampler'\n"
WEIGHTS = "model['cls_head']['loss_cls'] = dict(type='CrossEntropyLoss', class_weight='balanced')\n"
METRIC = "test_evaluator = dict(type='mmtimesformer.ClassAccuracyMetric', each_class=True)\n"
WRAPPER = """
train_dataloader['dataset'] = dict(
    type='ClassBalancedDataset', oversample_thr=0.5, dataset=train_dataloader['dataset'])
"""


def write_config(folder: Path, videos: Path, more: str = '') -> Path:
    """A config of 20 videos of one class and 2 of another."""
    lines = []
    for label, count in COUNTS.items():
        for i in range(count):
            shutil.copy(videos / f'{(i + label) % 6}.mp4', folder / f'{label}_{i}.mp4')
            lines.append(f'{label}_{i}.mp4 {label}')
    (folder / 'train.txt').write_text('\n'.join(lines) + '\n')
    (folder / 'val.txt').write_text('\n'.join(lines[-4:]) + '\n')
    (folder / 'classes.txt').write_text('wave\nclap\n')
    text = TEXT.replace('{videos}', str(folder)).replace('VideoDataset', VIDEOS)
    names = f"_names = dict(classes='{folder}/classes.txt')\n" + ''.join(
        f"{stage}_dataloader['dataset']['metainfo'] = _names\n" for stage in ('train', 'val')
    )
    path = folder / f'{folder.name}.py'
    path.write_text(f'{text}{names}del _names\n{more}experiment_name = {folder.name!r}\n')
    return path


VIDEOS = 'mmtimesformer.VideoDataset'


class Classes(Noise):
    """Twenty samples of one class and two of another."""

    def get_cat_ids(self, index: int) -> list[int]:
        return [int(index >= 20)]


BALANCED: dict[str, Any] = {'type': 'mmtimesformer.ClassBalancedSampler'}


@pytest.mark.parametrize(('step', 'workers'), [(3, 0), (9, 2)])
def test_a_balanced_training_resumes_bit_for_bit_within_an_epoch(
    train: Train, tmp_path: Path, step: int, workers: int
) -> None:
    how: dict[str, Any] = {'sampler': BALANCED, 'dataset': Classes(), 'workers': workers}
    train(work_dir=tmp_path / 'whole', **how)
    stop(train, step, **how)
    train(resume=True, **how)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_3.pth') for name in ('whole', 'work')))


TWO = """
import os, pathlib, signal, sys
import torch
from mmengine import dist
from mmtimesformer.cli import RunStopped
from mmtimesformer.engine.runner import Runner
from tests.cases.test_imbalance import BALANCED, Classes
from tests.engine.conftest import At, Guess

class Seen(At):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.indices = getattr(self, 'indices', []) + [list(runner.train_loop.indices)]

def train(work_dir, stop=None, **how):
    def ask(_):
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
    seen = Seen(-1 if stop is None else stop, ask)
    runner = Runner(
        model=Guess(), work_dir=work_dir, launcher='pytorch', cfg={},
        train_dataloader=dict(dataset=Classes(), sampler=BALANCED, batch_size=3, num_workers=0),
        train_cfg=dict(by_epoch=True, max_epochs=2), custom_hooks=[seen],
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)), randomness=dict(seed=3), **how)
    try:
        runner.train()
    except RunStopped:
        pass
    return seen.indices, {k: v.clone() for k, v in runner.model.state_dict().items()}

if __name__ == '__main__':
    whole, weights = train(sys.argv[1] + '/whole')
    first, _ = train(sys.argv[1] + '/work', stop=5)
    rest, resumed = train(sys.argv[1] + '/work', resume=True)
    assert 0 < len(first) < len(whole) and first + rest == whole, (first, rest, whole)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    torch.save(whole, f'{sys.argv[1]}/{dist.get_rank()}.pt')
"""


@pytest.mark.slow
def test_two_processes_draw_classes_equally_together_and_resume(tmp_path: Path) -> None:
    (tmp_path / 'two.py').write_text(TWO)
    torchrun = sys.executable, '-m', 'mmtimesformer.engine.launch.torchrun', '--standalone'
    code, output = finish(start(*torchrun, '--nproc-per-node', 2, tmp_path / 'two.py', tmp_path))
    assert code == 0, output
    one, other = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert [len(step) for step in one] == [len(step) for step in other] == [3, 3, 3, 2] * 2
    epoch = [index for step in one[:4] + other[:4] for index in step]
    assert sum(index >= 20 for index in epoch) == 11
    assert len([index for index in epoch if index < 20]) == len({i for i in epoch if i < 20}) == 11


def run(config: Path, *options: object) -> tuple[Path, str]:
    work = config.parent / 'work'
    code, output = tool('train', config, '--work-dir', work, '--seed', 0, *options)
    assert code == 0, output
    return work, output


def test_weights_of_the_list_are_logged_and_saved_in_the_config(
    tmp_path: Path, tiny_videos: Path
) -> None:
    config = write_config(tmp_path, tiny_videos, WEIGHTS + METRIC)
    work, output = run(config)
    assert "'wave' 0.55 (20 videos), 'clap' 5.5 (2 videos)" in output
    assert 'imbalanced' not in output
    saved = Config.fromfile(work / config.name)
    assert saved.model.cls_head.loss_cls.class_weight == [0.55, 5.5]
    stored = load_torch(work / 'epoch_1.pth')['meta']['cfg']
    assert re.search(r'class_weight=\[\s*0.55,\s*5.5,?\s*\]', stored)
    code, output = tool('test', config, work / 'epoch_1.pth', '--work-dir', work)
    assert code == 0, output
    assert re.search(r'Accuracy by class: \w+: [\d.]+ % of 2; \w+: [\d.]+ % of 2', output)
    assert 'acc/of/clap' in output and 'acc/min1' in output
    code, output = tool('predict', tiny_videos / '0.mp4', config, work / 'epoch_1.pth')
    assert code == 0, output


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        ('', "imbalanced: 'wave' has 20 training videos and 'clap' has 2.*ClassBalancedSampler"),
        (SAMPLER, ''),
        (WRAPPER, ''),
        (SAMPLER + WEIGHTS, 'ClassBalancedSampler and class_weight of the loss both correct'),
    ],
)
def test_imbalance_is_warned_about_before_the_start(
    tmp_path: Path, tiny_videos: Path, more: str, words: str
) -> None:
    cfg = Config.fromfile(write_config(tmp_path, tiny_videos, more))
    check_config(cfg, 'train')
    set_list_statistics(cfg, for_training=True)
    with quiet_process(), DefaultScope.overwrite_default_scope('mmaction'):
        note = note_on_imbalance(
            Runner.build_dataloader(cfg.train_dataloader, seed=0), MODELS.build(cfg.model)
        )
    assert (note is None) == (not words)
    assert note is None or re.search(words, note)


def test_the_warning_comes_before_the_first_step(tmp_path: Path, tiny_videos: Path) -> None:
    _, output = run(write_config(tmp_path, tiny_videos, WRAPPER.replace('0.5', '1e-9')))
    assert 'imbalanced' not in output
    _, output = run(write_config(tmp_path, tiny_videos), '--resume')
    assert output.index('The classes are imbalanced') < output.index('Nothing is left')


def test_weights_of_a_loss_that_takes_none_are_refused(tmp_path: Path, tiny_videos: Path) -> None:
    cfg = Config.fromfile(write_config(tmp_path, tiny_videos, WEIGHTS))
    cfg.model.cls_head.loss_cls.type = 'CBFocalLoss'
    with pytest.raises(ValueError, match='loss_cls.class_weight=.balanced.: CBFocalLoss takes no'):
        check_config(cfg, 'train')
    (tmp_path / 'train.txt').write_text('0_0.mp4\n')
    cfg.model.cls_head.loss_cls.type = 'CrossEntropyLoss'
    with pytest.raises(ValueError, match='no video of the training list has a label'):
        set_list_statistics(cfg, for_training=True)


AXES_CONFIG = """
_base_ = '{demo}'
model = dict(cls_head=dict(num_classes=4))
_data = dict(metainfo=dict(classes='{folder}/classes.txt'))
_loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **_loader, sampler=dict(type='{sampler}', shuffle=True),
    dataset=dict(**_data, ann_file='{folder}/train.txt',
                 data_prefix=dict(video='{folder}/data/videos_train')))
val_dataloader = dict(
    **_loader, dataset=dict(**_data, ann_file='{folder}/val.txt',
                            data_prefix=dict(video='{folder}/data/videos_val')))
val_evaluator = dict(type='mmtimesformer.ClassAccuracyMetric')
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_begin=4, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=1, end=4, convert_to_iter_based=True)]
"""


@pytest.fixture(scope='module')
def axes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Moving Shapes with its axes as classes: 400, 20, 400 and 20 training videos."""
    folder = tmp_path_factory.mktemp('axes')
    make_moving_shapes(folder / 'data', Settings(num_train=1600, num_val=240))
    axis_of = [AXES.index(MOTIONS[name][0]) for name in CLASSES]
    for split, rare in (('train', 20), ('val', 60)):
        lines, seen = [], dict.fromkeys(range(4), 0)
        for line in (folder / f'data/{split}.txt').read_text().splitlines():
            video, label = line.split()
            axis = axis_of[int(label)]
            if seen[axis] < (400 if axis in (0, 2) else rare):
                lines.append(f'{video} {axis}\n')
                seen[axis] += 1
        (folder / f'{split}.txt').write_text(''.join(lines))
    (folder / 'classes.txt').write_text('\n'.join(AXES) + '\n')
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_balanced_sampling_gains_10_points_of_mean_class_accuracy(axes: Path, seed: int) -> None:
    """The table of docs/datasets/imbalance.md: 212 steps each, about 4 minutes for all seeds."""
    demo = find_config('timesformer_divST-tiny_moving-shapes')
    found = []
    for sampler in ('DefaultSampler', BALANCED['type']):
        name = f'{sampler.rpartition(".")[2]}_{seed}'
        config = axes / f'{name}.py'
        config.write_text(AXES_CONFIG.format(demo=demo, folder=axes, sampler=sampler))
        code, output = tool('train', config, '--work-dir', axes / name, '--seed', seed)
        assert code == 0, output
        found.append(float(re.findall(r'acc/mean1: ([\d.]+)', output)[-1]))
    plain, balanced = found
    assert balanced >= plain + 0.10
