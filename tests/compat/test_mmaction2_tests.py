"""MMAction2's own unit tests for recognizers, data sets and transforms, with our fixes.

Its packages contain none: MMACTION2_SOURCE names a checkout, in the version that is installed.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = os.environ.get('MMACTION2_SOURCE')
PARTS = ('tests/models/recognizers', 'tests/datasets')
# What these tests may need that is not installed; any other failure is one.
OPTIONAL = re.compile(
    r"No module named '(mmcls|mmpretrain|timm|torchvision|clip|pims|imgaug)'|MobileOneTSM is not in"
)


def run(source: Path, results: Path, *options: str) -> tuple[int, dict[str, str]]:
    """Return how many tests pass, and the text of each failure by the name of its test."""
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-W', 'ignore']
    command += [f'--junitxml={results}', *options, *PARTS]
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    environment = {name: value for name, value in os.environ.items() if 'PYTEST' not in name}
    environment['PYTHONPATH'] = path
    subprocess.run(command, cwd=source, env=environment, capture_output=True, check=False)
    cases = list(ElementTree.parse(results).iter('testcase'))
    failures = {
        case.get('name', ''): ''.join(part.text or '' for part in case.iter() if part is not case)
        for case in cases
        if case.find('failure') is not None or case.find('error') is not None
    }
    return len(cases) - len(failures), failures


@pytest.mark.slow
@pytest.mark.skipif(not SOURCE, reason='MMACTION2_SOURCE names no checkout of MMAction2')
def test_mmaction2s_own_tests_pass_where_their_packages_are_installed(tmp_path: Path) -> None:
    source = Path(SOURCE or '').resolve()
    assert (source / PARTS[0]).is_dir(), f'MMACTION2_SOURCE={SOURCE} has no {PARTS[0]}'
    alone, without = run(source, tmp_path / 'alone.xml')
    passed, failures = run(source, tmp_path / 'with.xml', '-p', 'mmtimesformer')
    print(f'{alone} pass alone, {passed} with mmtimesformer')
    assert passed >= 90
    assert failures.keys() <= without.keys(), 'a test fails only with mmtimesformer'
    others = {name: text[-500:] for name, text in failures.items() if not OPTIONAL.search(text)}
    assert others == {}
