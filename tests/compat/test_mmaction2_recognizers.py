"""MMAction2's recognizers on today's torch, with and without our fixes: the committed results.

The table of docs/stack.md is that of benchmarks/results/mmaction2_recognizers.json. One config of
each family is run again here.
"""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'benchmarks' / 'mmaction2_recognizers.py'
PAGE = ROOT / 'docs' / 'stack.md'
RESULTS = {
    'MMAction2 1.1.0, MMEngine 0.11.0rc3': 'mmaction2_recognizers.json',
    'MMAction2 1.1.0, MMEngine 0.10.7, one config a family': 'mmaction2_recognizers_0.10.7.json',
    'MMAction2 1.2.0, MMEngine 0.11.0rc3, one config a family': 'mmaction2_recognizers_1.2.0.json',
}


def _load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('mmaction2_recognizers', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules['mmaction2_recognizers'] = module  # dataclasses need it there
    spec.loader.exec_module(module)
    return module


tool = _load_tool()


def results(name: str = 'mmaction2_recognizers.json') -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / 'benchmarks' / 'results' / name).read_text())
    return found


def test_every_recognizer_config_of_the_wheel_was_measured_both_ways() -> None:
    found = results()
    if importlib.metadata.version('mmaction2') != found['versions']['mmaction2']:
        pytest.skip('another version of MMAction2 has other configs')
    rows = found['configs']
    assert sorted(rows) == tool.names_of_configs(tool.configs_folder())
    assert all(set(row) == {'plain', 'with'} for row in rows.values())


@pytest.mark.parametrize('name', RESULTS.values())
def test_what_runs_alone_runs_with_the_package_and_only_known_reasons_are_left(name: str) -> None:
    known = set(tool.SENTENCES.values()) - {r'`\1` needs \2, not installed'}
    for config, row in results(name)['configs'].items():
        assert row['plain']['stage'] != 'ok' or row['with']['stage'] == 'ok', config
        words = tool.sentence(row['with'])
        assert not words or words in known or words.endswith('not installed'), (config, words)


def test_page_has_the_tables_of_the_results() -> None:
    stacks = {stack: results(name) for stack, name in RESULTS.items()}
    text = PAGE.read_text()
    assert tool.summary(stacks) in text
    assert tool.table(next(iter(stacks.values()))) in text
    for stack, found in stacks.items():
        for package in ('mmaction2', 'mmengine'):
            assert found['versions'][package] in stack
    assert results()['versions']['torch'].partition('+')[0] in text and results()['date'] in text


@pytest.mark.slow
def test_one_config_of_each_family_runs_as_committed(tmp_path: Path) -> None:
    out = tmp_path / 'found.json'
    command = [sys.executable, TOOL, '--representatives', '--limit', '300', '--out', out]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    committed, changed = results()['configs'], []
    for name, row in json.loads(out.read_text())['configs'].items():
        for way, found in row.items():
            before = committed[name][way]
            if found['stage'] != before['stage'] and 'not installed' not in before['reason']:
                changed.append(f'{name} {way}: {before["stage"]}, now {found}')
    assert not changed, '\n'.join(changed)


@pytest.mark.parametrize(
    ('reason', 'words'),
    [
        ('ImportError: Failed to import `tin_shift` from `mmcv.ops`.', "mmcv's compiled operators"),
        ('ModuleNotFoundError: timm.x needs timm, not installed', '`timm.x` needs timm'),
        ('OSError: a | b', 'OSError: a / b'),
        ('', ''),
    ],
)
def test_an_error_becomes_a_sentence(reason: str, words: str) -> None:
    assert words in tool.sentence({'reason': reason})


def test_a_run_that_crashes_or_hangs_is_a_result() -> None:
    import os
    import time

    crashed = tool.in_a_process(lambda run: os._exit(7), 30)
    assert (crashed['stage'], crashed['reason']) == ('crash', 'the process ended with exit code 7')
    assert tool.in_a_process(lambda run: time.sleep(60), 1)['stage'] == 'time'


def test_a_large_model_is_made_small_and_each_change_is_recorded() -> None:
    changes: list[str] = []
    backbone = {'type': 'UniFormerV2', 'patch_size': 14, 'layers': 24, 'n_layers': 2}
    backbone['return_list'] = [22, 23]
    tool.shrink_model(backbone, tool.size_of(backbone), changes)
    assert backbone['input_resolution'] == 70 and backbone['return_list'] == [4, 5]
    assert changes == ['6 of 24 layers']
    resnet = {'type': 'ResNet3d', 'depth': 50}
    tool.shrink_model(resnet, 64, changes)
    assert resnet == {'type': 'ResNet3d', 'depth': 50} and len(changes) == 1
