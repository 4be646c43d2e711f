"""W4: the value of any metric is written as JSON, and a line of scores is always shown."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS

from mmtimesformer.engine.runner import _is_for_terminal
from mmtimesformer.fileio.json_values import to_json
from tests.cases.test_multi_label import tool
from tests.tools.conftest import TEXT

METRIC_PAIR = """
val_evaluator = [dict(type='AccMetric', metric_options=dict(top_k_accuracy=dict(topk=(1,)))),
                 dict(type='ConfusionMatrix', num_classes=2)]
test_evaluator = val_evaluator
"""


@METRICS.register_module()
class AnyValues(BaseMetric):
    """A metric of a user, which returns what it likes."""

    default_prefix = 'any'

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list[int]) -> dict[str, Any]:
        return {
            'nan': float('nan'),
            'infinite': torch.tensor(float('inf')),
            'per_class': np.array([0.5, np.nan], dtype=np.float32),
            'words': ['best', 'worst'],
            'nested': {'a': (1, torch.ones(2, 2, dtype=torch.bfloat16))},
            'matrix': torch.eye(2, dtype=torch.int64),
        }


@pytest.fixture
def config(tiny_videos: Path, tmp_path: Path) -> Path:
    path = tmp_path / 'config.py'
    text = TEXT.replace('{videos}', str(tiny_videos)) + METRIC_PAIR
    path.write_text(f'{text}experiment_name = {tmp_path.name!r}\n')
    return path


@pytest.fixture
def trained(config: Path, tmp_path: Path) -> Path:
    """A training with a confusion matrix in its validation, and its last checkpoint."""
    code, output = tool('train', config, '--work-dir', tmp_path / 'work')
    assert code == 0, output
    assert re.search(r'Epoch\(val\).*acc/top1: \d\.\d+.*confusion_matrix/result: \ntensor', output)
    return tmp_path / 'work' / 'epoch_1.pth'


def strict(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f'{path} holds {name}, which is no JSON')

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_confusion_matrix_is_shown_and_written(
    config: Path, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / 'result.pkl'
    code, output = tool('test', config, trained, '--work-dir', tmp_path / 'work', '--dump', out)
    assert code == 0, output
    assert re.search(r'Epoch\(test\).*acc/top1: \d\.\d+', output)
    scores = strict(tmp_path / 'result.meta.json')['scores']
    matrix = scores['confusion_matrix/result']
    assert np.array(matrix).shape == (2, 2) and np.sum(matrix) == 3
    assert np.trace(matrix) / 3 == pytest.approx(scores['acc/top1'])
    code, output = tool('test', config, trained, '--work-dir', tmp_path / 'work')
    assert (code, 'acc/top1' in output) == (0, True)


def test_a_training_resumes_after_a_matrix(config: Path, trained: Path, tmp_path: Path) -> None:
    options = '--cfg-options', 'train_cfg.max_epochs=2'
    code, output = tool('train', config, '--work-dir', tmp_path / 'work', '--resume', *options)
    assert code == 0, output
    assert (tmp_path / 'work/epoch_2.pth').is_file()


def test_whatever_a_metric_returns_is_written_as_json(
    config: Path, trained: Path, tmp_path: Path
) -> None:
    config.write_text(f"{config.read_text()}test_evaluator = dict(type='AnyValues')\n")
    out = tmp_path / 'result.pkl'
    code, output = tool('test', config, trained, '--work-dir', tmp_path / 'work', '--dump', out)
    assert code == 0, output
    assert strict(tmp_path / 'result.meta.json')['scores'] == {
        'any/nan': None,
        'any/infinite': None,
        'any/per_class': [0.5, None],
        'any/words': ['best', 'worst'],
        'any/nested': {'a': [1, [[1.0, 1.0], [1.0, 1.0]]]},
        'any/matrix': [[1, 0], [0, 1]],
    }
    code, output = tool('analysis_tools/report', tmp_path / 'work', '--predictions', out)
    assert code == 0, output


@pytest.mark.parametrize(
    ('value', 'written'),
    [
        (np.float64('nan'), None),
        (np.bool_(True), True),
        (torch.tensor(3), 3),
        ({2, 1}, [1, 2]),
        ({1: float('-inf')}, {'1': None}),
        (torch.eye(2).to_sparse(), [[1.0, 0.0], [0.0, 1.0]]),
        (1 + 2j, '(1+2j)'),
        (Path('a/b'), 'a/b'),
        (None, None),
    ],
)
def test_values_become_plain(value: Any, written: Any) -> None:
    assert to_json(value) == written
    json.dumps(to_json(value), allow_nan=False)


@pytest.mark.parametrize(
    ('message', 'shown'),
    [
        ('Epoch(test) [2/2]  acc/top1: 0.5  matrix: \ntensor([[1],\n[2]])\n', True),
        ('Iter(val) [2/2]  matrix: \ntensor([[1],\n[2]])\n', True),
        ('my own table:\na 1\nb 2\n', True),
        ('\n' + '-' * 60 + '\nSystem environment:\n    sys.platform: linux\n', False),
        ('Config:\nmodel = dict(\n)\n', False),
        ('Hooks will be executed in the following order:\nbefore_run:\n(1) X\n', False),
    ],
)
def test_the_terminal_drops_known_pages_alone(message: str, shown: bool) -> None:
    record = logging.LogRecord('mmengine', logging.INFO, '', 0, message, (), None)
    assert _is_for_terminal(record) is shown


def test_the_best_checkpoint_is_not_chosen_by_a_matrix(config: Path, tmp_path: Path) -> None:
    text = config.read_text().replace('val_evaluator = [', 'val_evaluator = [*_matrix, ')
    matrix = "_matrix = [dict(type='ConfusionMatrix')]\n"
    config.write_text(f'{matrix}{text}del _matrix\n')
    code, output = tool('train', config, '--work-dir', tmp_path / 'work')
    assert code == 1
    assert "save_best='auto' takes the first value of val_evaluator" in output
