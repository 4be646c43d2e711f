"""W1 and W2: several labels a video, from the training to the report, as sigmoids, not as top-1."""

import importlib.util
import io
import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from sklearn.metrics import average_precision_score

from mmtimesformer.analysis.predictions import read_predictions
from mmtimesformer.checkpoints import load_torch
from mmtimesformer.compat.data_samples import label_of, labels_of
from mmtimesformer.inference import VideoClassifier
from tests.page_markup import shown_part
from tests.tools.conftest import TEXT

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
NAMES = ['run', 'jump', 'left', 'right']
LABELS = {
    'train': ['0 2', '1', '1 3', '', '0 3', '2'],
    'val': ['1 3', '2', '0 2', '0 1 3', '3', '1'],
}
# What a user adds to a config of one label a video.
MULTI_LABEL = """
_data = dict(multi_class=True, num_classes=4, metainfo=dict(classes='{folder}/classes.txt'))
_loaders = train_dataloader, val_dataloader, test_dataloader
for _loader, _list in zip(_loaders, ('train', 'val', 'val')):
    _loader['dataset'].update(_data, ann_file=f'{folder}/{_list}.txt')
model['cls_head'].update(
    num_classes=4, multi_class=True, loss_cls=dict(type='BCELossWithLogits'), init_std=0.5)
val_evaluator = dict(type='AccMetric', metric_list=('mean_average_precision',))
test_evaluator = val_evaluator
del _data, _loaders, _loader, _list
"""
SIGMOID = "model['cls_head']['average_clips'] = 'sigmoid'\n"


@contextmanager
def quiet_process() -> Iterator[None]:
    """Run tools in this process, and leave it as it was."""
    scopes = dict(DefaultScope._instance_dict)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('warnings.filterwarnings', lambda *args, **kwargs: None)
        patch.setenv('LOCAL_RANK', '0')
        yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    for logger in MMLogger._instance_dict.values():
        for handler in logger.handlers:
            handler.close()


def tool(name: str, *words: object) -> tuple[int, str]:
    """Return the exit code of a tool and all that it printed."""
    path = TOOLS / f'{name}.py'
    spec: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    output = io.StringIO()
    with quiet_process(), redirect_stdout(output), redirect_stderr(output):
        code = module.main([str(word) for word in words])
    assert 'Traceback' not in output.getvalue()
    return code, output.getvalue()


def write_config(folder: Path, videos: Path, more: str = SIGMOID) -> Path:
    """Write lists of several labels, names of classes and a config that uses them."""
    for split, lines in LABELS.items():
        text = ''.join(f'{i}.mp4 {line}'.strip() + '\n' for i, line in enumerate(lines))
        (folder / f'{split}.txt').write_text(text)
    (folder / 'classes.txt').write_text('\n'.join(NAMES))
    text = TEXT.replace('{videos}', str(videos)) + MULTI_LABEL.replace('{folder}', str(folder))
    path = folder / 'config.py'
    path.write_text(f'{text}{more}experiment_name = {folder.name!r}\n')
    return path


@pytest.fixture(scope='module')
def run(tiny_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, what its training left in ``work``, and the dump of a test."""
    folder = tmp_path_factory.mktemp('multi_label')
    config, work = write_config(folder, tiny_videos), folder / 'work'
    code, output = tool('train', config, '--work-dir', work, '--seed', 0)
    assert code == 0, output
    code, output = tool(
        'test', config, work / 'epoch_1.pth', '--work-dir', work, '--dump', work / 'result.pkl',
        '--show-dir', folder / 'pictures',
    )  # fmt: skip
    assert code == 0, output
    return folder


def test_the_dump_has_all_true_labels_and_sigmoids(run: Path) -> None:
    samples = pickle.loads((run / 'work/result.pkl').read_bytes())
    assert [labels_of(sample) for sample in samples] == [[1, 3], [2], [0, 2], [0, 1, 3], [3], [1]]
    with pytest.raises(ValueError, match='a multi-hot row of 4 numbers'):
        label_of(samples[0])
    scores, labels = read_predictions(run / 'work/result.pkl')
    assert labels.dtype == bool and labels.shape == scores.shape == (6, 4)
    views = np.stack([sample['view_scores'].numpy() for sample in samples])
    assert scores == pytest.approx((1 / (1 + np.exp(-views))).mean(axis=1), abs=1e-6)
    assert np.abs(scores.sum(axis=1) - 1).max() > 0.05  # no softmax


def test_the_score_of_the_test_is_the_mean_over_classes(run: Path) -> None:
    about = json.loads((run / 'work/result.meta.json').read_text())
    scores, labels = read_predictions(run / 'work/result.pkl')
    expected = np.mean([average_precision_score(labels[:, i], scores[:, i]) for i in range(4)])
    assert about['scores'] == {'acc/mean_average_precision': pytest.approx(expected)}
    assert about['fusion'] == 'mean of sigmoid'


def test_the_page_has_average_precision_and_no_top_1(run: Path) -> None:
    code, output = tool('analysis_tools/report', run / 'work')
    assert code == 0, output
    page = shown_part((run / 'work/report.html').read_text())
    about = json.loads((run / 'work/result.meta.json').read_text())
    shown = f'{100 * about["scores"]["acc/mean_average_precision"]:.2f}\u00a0%'
    assert f'<dt>mean average precision</dt><dd><b>{shown}</b></dd>' in page
    assert 'top-1' not in page and 'Confusion matrix' not in page
    assert 'F1 at 50\u00a0%, micro' in page and '>nan' not in page
    text = re.sub('<[^>]+>', '', page)
    for name in NAMES:
        assert name in text


def test_pictures_name_all_true_classes(run: Path) -> None:
    names = sorted(path.name for path in (run / 'pictures').rglob('*.png'))
    truths = [re.search(r'_truth_(.+)_0\.png', name)[1] for name in names]  # type: ignore[index]
    assert truths == ['jump+right', 'left', 'run+left', 'run+jump+right', 'right', 'jump']


@pytest.mark.parametrize('with_config', [False, True])
def test_predictions_are_the_sigmoids_of_the_test(
    run: Path, tiny_videos: Path, with_config: bool
) -> None:
    scores, _ = read_predictions(run / 'work/result.pkl')
    checkpoint = run / 'work/epoch_1.pth'
    classifier = VideoClassifier(run / 'config.py' if with_config else None, checkpoint, 'cpu')
    prediction = classifier(tiny_videos / '0.mp4', topk=4)
    assert prediction.all_scores == pytest.approx(scores[0], abs=1e-5)
    assert prediction.fusion == 'mean of sigmoid' and prediction.is_probability
    above = [NAMES[i] for i in np.argsort(-scores[0], kind='stable') if scores[0, i] >= 0.5]
    assert prediction.above_threshold == above
    every = classifier(tiny_videos / '0.mp4', topk=1, threshold=0)
    assert len(every.labels) == 1 and sorted(every.above_threshold) == sorted(NAMES)


def test_an_older_config_that_says_softmax_is_predicted_by_sigmoids(
    run: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    """As MMAction2, and earlier versions of this package, trained it: W2."""
    checkpoint = load_torch(run / 'work/epoch_1.pth')
    text = checkpoint['meta']['cfg']
    older = text.replace("average_clips='sigmoid'", "average_clips='prob'").replace(
        'mmtimesformer.TimeSformerHead', 'TimeSformerHead'
    )
    assert older != text
    kept = {'meta': {'cfg': older}, 'state_dict': checkpoint['state_dict']}
    torch.save(kept, tmp_path / 'older.pth')
    scores, _ = read_predictions(run / 'work/result.pkl')
    classifier = VideoClassifier(checkpoint=tmp_path / 'older.pth', device='cpu')
    assert classifier(tiny_videos / '0.mp4').all_scores == pytest.approx(scores[0], abs=1e-5)


def test_predict_writes_which_labels_a_video_has(
    run: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    video, checkpoint, out = tiny_videos / '0.mp4', run / 'work/epoch_1.pth', tmp_path / 'x.json'
    code, output = tool('predict', video, checkpoint, '--threshold', '0', '--out', out)
    assert code == 0, output
    assert 'at least 0 %: ' in output
    written = json.loads(out.read_text())
    assert written['score'] == 'mean of sigmoid'
    assert sorted(written['videos'][0]['above_threshold']) == sorted(NAMES)
    code, output = tool(
        'predict', video, checkpoint, '--threshold', '1', '--out', tmp_path / 'x.csv'
    )
    assert (code, 'at least 100 %: no label' in output) == (0, True)
    rows = (tmp_path / 'x.csv').read_text().splitlines()
    assert rows[0].endswith(',skipped,above_threshold')
    assert {row.rpartition(',')[2] for row in rows[1:]} == {'no'}
    code, output = tool('predict', video, checkpoint, '--threshold', '50')
    assert (code, 'threshold=50.0 is not a probability' in output) == (1, True)


@pytest.mark.parametrize('purpose', ['train', 'test'])
@pytest.mark.parametrize(
    ('change', 'found'),
    [
        ('', "='prob' is a softmax"),  # as in the config of one label
        ("del model['cls_head']['average_clips']\n", ' is not set'),
    ],
)
def test_sigmoid_is_chosen_and_logged_for_labels_that_were_trained_apart(
    tiny_videos: Path, tmp_path: Path, purpose: str, change: str, found: str
) -> None:
    from mmtimesformer.config.validate import check_config

    config = write_config(tmp_path, tiny_videos, change)
    cfg = Config.fromfile(config)
    notes = check_config(cfg, purpose)
    assert f'model.cls_head.average_clips{found}' in notes[0], notes
    assert "'sigmoid' is used" in notes[0] and 'mmtimesformer.TimeSformerHead' in notes[1]
    assert cfg.model.cls_head.average_clips == 'sigmoid'
    assert cfg.model.cls_head.type == 'mmtimesformer.TimeSformerHead'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            "train_dataloader['dataset'].pop('num_classes')",
            'set train_dataloader.dataset.num_classes',
        ),
        ("val_dataloader['dataset'].update(num_classes=3)", 'num_classes=3 and the model has 4'),
        ("model['cls_head'].pop('loss_cls')", "loss_cls=dict(type='BCELossWithLogits')"),
        ("val_evaluator = dict(type='AccMetric')", 'top_k_accuracy needs one label'),
        ("val_evaluator = dict(type='ConfusionMatrix')", 'ConfusionMatrix needs one label'),
        (
            "val_evaluator['metric_list'] = ('mean_average_presicion',)",
            "did you mean 'mean_average_precision'?",
        ),
        ("val_evaluator['metric_list'] = ['mean_average_precision']", 'takes a text or a tuple'),
        (
            "train_dataloader['dataset']['multi_class'] = False\n"
            "model['cls_head']['multi_class'] = False\n"
            "model['cls_head']['loss_cls'] = dict(type='CrossEntropyLoss')",
            'line 1 has 3 parts',
        ),
    ],
)
def test_a_mixture_is_refused_before_the_start(
    tiny_videos: Path, tmp_path: Path, change: str, words: str
) -> None:
    config = write_config(tmp_path, tiny_videos, f'{SIGMOID}{change}\n')
    config.write_text(config.read_text() + "default_hooks['checkpoint']['save_best'] = 'auto'\n")
    code, output = tool('train', config, '--work-dir', tmp_path / 'work')
    assert code == 1
    (sentence,) = [line for line in output.splitlines() if line.startswith('error: ')]
    assert words in sentence


def test_average_precision_of_single_labels_is_refused_before_the_start(
    tiny_videos: Path, tmp_path: Path
) -> None:
    config = tmp_path / 'config.py'
    metric = "test_evaluator = dict(type='AccMetric', metric_list='mean_average_precision')"
    config.write_text(TEXT.replace('{videos}', str(tiny_videos)) + metric)
    torch.save({'state_dict': {}}, tmp_path / 'x.pth')
    code, output = tool('test', config, tmp_path / 'x.pth', '--work-dir', tmp_path / 'work')
    assert code == 1
    assert 'test_evaluator.metric_list: mean_average_precision needs a multi-hot row' in output
