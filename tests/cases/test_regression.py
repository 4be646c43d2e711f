"""Regression: numbers in the list, training, resuming, test, report and prediction."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from sklearn.metrics import mean_absolute_error, r2_score

from mmtimesformer.analysis.predictions import read_predictions
from mmtimesformer.checkpoints import load_torch
from mmtimesformer.compat.regression import regression_errors
from mmtimesformer.config.find import find_config
from mmtimesformer.config.validate import check_config
from mmtimesformer.datasets.preparation.moving_shapes import (
    CLASSES,
    MOTIONS,
    SPLITS,
    Settings,
    draw_scene,
    make_moving_shapes,
)
from mmtimesformer.fileio.targets import parse_targets
from mmtimesformer.heads import RegressionHead, ScaledLinear
from mmtimesformer.inference import VideoClassifier
from tests.cases.test_multi_label import tool
from tests.page_markup import shown_part
from tests.tools.conftest import TEXT

NUMBERS = [(0.5 + i, 1000.0 * i) for i in range(6)]
REGRESSION = """
_data = dict(num_targets=2, metainfo=dict(classes=['speed', 'price']))
for _loader in (train_dataloader, test_dataloader):
    _loader['dataset'].update(_data, type='mmtimesformer.VideoDataset')
    _loader['dataset']['ann_file'] = _loader['dataset']['ann_file'].replace('{videos}', '{folder}')
model['cls_head'] = dict(
    type='mmtimesformer.RegressionHead', num_targets=2, in_channels=24, loss='smooth_l1',
    target_mean='auto', target_std='auto')
val_dataloader = test_dataloader
val_evaluator = dict(type='mmtimesformer.RegressionMetric')
test_evaluator = val_evaluator
default_hooks['checkpoint'].update(save_best='regression/mae', rule='less')
del _data, _loader
"""


CLASSIFIER = dict(
    _delete_=True, type='TimeSformerHead', num_classes=2, in_channels=24, average_clips='prob'
)
AUTO = dict(save_best='auto', rule=None)


def write_config(folder: Path, videos: Path) -> Path:
    for split, indices in (('train', range(4)), ('val', range(3, 6))):
        lines = [f'{i}.mp4 {NUMBERS[i][0]} {NUMBERS[i][1]}\n' for i in indices]
        (folder / f'{split}.txt').write_text(''.join(lines))
    more = REGRESSION.replace('{videos}', str(videos)).replace('{folder}', str(folder))
    path = folder / 'config.py'
    path.write_text(
        f'{TEXT.replace("{videos}", str(videos))}{more}experiment_name = {folder.name!r}\n'
    )
    return path


@pytest.fixture(scope='module')
def run(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, what its training left in ``work``, and the dump of a test."""
    folder = tmp_path_factory.mktemp('regression')
    config, work = write_config(folder, tiny_videos), folder / 'work'
    code, output = tool('train', config, '--work-dir', work, '--seed', 0)
    assert code == 0, output
    assert 'Targets of the training list (mean +- standard deviation): 2 +- 1.11803, 1500' in output
    code, output = tool(
        'test', config, work / 'epoch_1.pth', '--work-dir', work, '--dump', work / 'result.pkl',
        '--show-dir', folder / 'pictures',
    )  # fmt: skip
    assert code == 0, output
    assert 'mean of numbers' in output and 'top1' not in output
    return folder


def test_the_dump_has_numbers_and_the_scores_are_those_of_scikit_learn(run: Path) -> None:
    scores, labels = read_predictions(run / 'work/result.pkl')
    assert labels == pytest.approx(np.array(NUMBERS[3:]))
    about = json.loads((run / 'work/result.meta.json').read_text())
    found = about['scores']
    assert found['regression/mae'] == pytest.approx(mean_absolute_error(labels, scores), rel=1e-5)
    r2 = r2_score(labels, scores, multioutput='raw_values')
    assert found['regression/r2/price'] == pytest.approx(r2[1], rel=1e-4)
    assert found['regression/mae/speed'] == pytest.approx(abs(scores - labels)[:, 0].mean())
    assert 'label' not in ' '.join(sorted((run / 'pictures').iterdir())[0].name.split('_')[:1])


def test_the_page_has_a_scatter_plot_and_no_top_1(run: Path) -> None:
    code, output = tool('analysis_tools/report', run / 'work')
    assert code == 0, output
    page = (run / 'work/report.html').read_text()
    assert 'Predicted against true' in page and 'R²' in page and 'price' in page
    assert not re.search('top-1|accuracy|Confusion', shown_part(page))


@pytest.mark.parametrize('with_config', [True, False])
def test_predictions_are_the_numbers_of_the_test(
    run: Path, tiny_videos: Path, with_config: bool
) -> None:
    scores, _ = read_predictions(run / 'work/result.pkl')
    config = run / 'config.py' if with_config else None
    prediction = VideoClassifier(config, run / 'work/epoch_1.pth')(tiny_videos / '3.mp4')
    assert prediction.all_scores == pytest.approx(scores[0], rel=1e-5)
    assert prediction.as_dict()['numbers']['price'] == pytest.approx(scores[0, 1], rel=1e-5)
    assert re.search(r'speed +\S+\n +price +\d', str(prediction))
    assert '%' not in str(prediction)


def test_saved_numbers_are_resolved_and_the_checkpoint_has_the_unit_of_the_targets(
    run: Path,
) -> None:
    saved = load_torch(run / 'work/epoch_1.pth')
    assert saved['state_dict']['cls_head.fc_cls.bias'][1] == pytest.approx(1500, abs=30)
    stored = Config.fromstring(saved['meta']['cfg'], '.py')
    assert stored.model.cls_head.target_std == [1.11803, 1118.03]


@pytest.mark.parametrize('scale', [[1.0, 1024.0, 2.0**-20], [0.5, 0.25, 8.0]])
def test_saving_and_loading_change_no_bit_and_any_scale_reads_it(scale: list[float]) -> None:
    layer = ScaledLinear(5, 3, torch.tensor(scale))
    features = torch.randn(7, 5)
    plain, other = torch.nn.Linear(5, 3), ScaledLinear(5, 3, torch.tensor([2.0, 2.0, 64.0]))
    for reader in (plain, other):
        reader.load_state_dict(layer.state_dict())
        assert torch.allclose(reader(features), layer(features), rtol=1e-6, atol=0)
    again = ScaledLinear(5, 3, torch.tensor(scale))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.weight, layer.weight) and torch.equal(again.bias, layer.bias)
    average = ExponentialMovingAverage(layer)
    assert torch.equal(average.state_dict()['module.bias'], layer.state_dict()['bias'])


@pytest.mark.parametrize('loss', ['mse', 'l1', 'smooth_l1'])
def test_a_head_learns_numbers_of_very_different_sizes(loss: str) -> None:
    head = RegressionHead(2, 6, loss, target_mean=[1e-3, 5e4], target_std=[1e-4, 1e4])
    head.init_weights()
    features = torch.randn(64, 6)
    targets = features[:, :2] * torch.tensor([1e-4, 1e4]) + torch.tensor([1e-3, 5e4])
    samples: list[Any] = [_Sample(row) for row in targets]
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss_by_feat(head(features), samples)['loss_cls'].backward()
        optimizer.step()
    _, r2 = regression_errors(targets.double(), head(features).detach().double())
    assert (r2 > 0.99).all()


class _Sample(dict):
    def __init__(self, numbers: torch.Tensor) -> None:
        super().__init__(gt_label=numbers)

    def all_items(self) -> Any:
        return self.items()


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('b.mp4 fast 1', "list.txt, line 2: 'fast' is no finite number"),
        ('b.mp4 nan 1', "line 2: 'nan' is no finite number"),
        ('b.mp4 1e999 1', "line 2: '1e999' is no finite number"),
        ('b.mp4 0,5 1', "line 2: '0,5' is no finite number; write one such as 0.5"),
        ('b.mp4 1', 'line 2 has 1 numbers after the video and num_targets=2'),
        ('', 'line 2 is blank'),
    ],
)
def test_a_line_without_its_numbers_is_refused(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_targets(['a.mp4 1 2', line], 'list.txt', 2)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'test_evaluator.type': 'AccMetric'}, 'AccMetric is for classes'),
        ({'model.cls_head.num_targets': 3}, 'model.cls_head.num_targets=3 and .*num_targets=2'),
        ({'model.cls_head': CLASSIFIER}, 'gives numbers .*RegressionHead'),
        ({'model.cls_head.loss': 'huber'}, "loss='huber' is not known"),
        ({'default_hooks.checkpoint': AUTO}, "save_best='auto' needs a rule"),
        ({'train_dataloader.dataset.num_targets': 1}, 'num_targets=1'),
    ],
)
def test_a_mixture_is_refused_before_the_start(
    tiny_videos: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    cfg = Config.fromfile(write_config(tmp_path, tiny_videos))
    cfg.val_evaluator = dict(cfg.val_evaluator)
    cfg.merge_from_dict(change)
    with pytest.raises((ValueError, TypeError), match=words):
        check_config(cfg, 'test' if 'test_evaluator.type' in change else 'train')


def test_an_unreadable_video_is_left_out_and_counted(
    run: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    (tmp_path / 'videos').mkdir()
    for i in (3, 4, 5):
        content = b'' if i == 4 else (tiny_videos / f'{i}.mp4').read_bytes()
        (tmp_path / f'videos/{i}.mp4').write_bytes(content)
    options = 'test_dataloader.dataset.data_prefix.video', tmp_path / 'videos'
    code, output = tool(
        'test', run / 'config.py', run / 'work/epoch_1.pth', '--work-dir', tmp_path, '--dump',
        tmp_path / 'result.pkl', '--cfg-options', '='.join(map(str, options)),
    )  # fmt: skip
    assert code == 0, output
    assert re.search('1 of 3 videos have no finite prediction', output), output
    assert '4.mp4 cannot be read: it is empty; it is left out of the errors' in output
    assert '1 of 3 videos could not be read, and are left out of the errors' in output
    assert 'as wrong' not in output
    code, output = tool('analysis_tools/report', tmp_path)
    assert code == 0, output
    page = shown_part((tmp_path / 'report.html').read_text())
    assert 'Videos that could not be read' in page and '4.mp4<' in page
    assert 'They are left out of the errors' in page
    assert 'as wrong' not in page


HEIGHTS = """
_base_ = '{demo}'
model = dict(cls_head=dict(
    _delete_=True, type='mmtimesformer.RegressionHead', num_targets=1, in_channels=64,
    target_mean='auto', target_std='auto'))
_data = dict(num_targets=1, metainfo=dict(classes=['height']))
_loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**_loader, dataset=dict(
    **_data, ann_file='{folder}/train.txt', data_prefix=dict(video='{folder}/data/videos_train')))
val_dataloader = dict(**_loader, dataset=dict(
    **_data, ann_file='{folder}/val.txt', data_prefix=dict(video='{folder}/data/videos_val')))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmtimesformer.RegressionMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best=None))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_begin=4, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=1, end=4, convert_to_iter_based=True)]
"""


@pytest.fixture(scope='module')
def heights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The videos of Moving Shapes that orbit or change size, with the height of their place."""
    folder = tmp_path_factory.mktemp('heights')
    make_moving_shapes(folder / 'data', Settings(num_train=1600, num_val=240))
    for part, split in enumerate(SPLITS):
        lines = []
        for line in (folder / f'data/{split}.txt').read_text().splitlines():
            video, label = line.split()
            if MOTIONS[CLASSES[int(label)]][0] in ('orbit', 'size'):
                seed = [0, part, int(video.partition('_')[0])]
                scene = draw_scene(np.random.default_rng(seed))
                lines.append(f'{video} {scene.near_y:.3f}\n')
        (folder / f'{split}.txt').write_text(''.join(lines))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_the_place_of_a_shape_is_learned(heights: Path, seed: int) -> None:
    """The figures of docs/datasets/regression.md: 200 steps each; R2 was 0.28 to 0.50."""
    demo = find_config('timesformer_divST-tiny_moving-shapes')
    config = heights / f'heights_{seed}.py'
    config.write_text(HEIGHTS.format(demo=demo, folder=heights))
    code, said = tool('train', config, '--work-dir', heights / str(seed), '--seed', seed)
    assert code == 0, said
    r2, mae = (float(re.findall(rf'regression/{n}: ([\d.-]+)', said)[-1]) for n in ('r2', 'mae'))
    assert r2 >= 0.2, (r2, mae)
