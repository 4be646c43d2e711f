"""The commands of docs/probing.md and docs/calibration.md, run as they are printed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Made

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r'^python -m mmtimesformer .*$', re.MULTILINE)


def commands(page: str) -> list[str]:
    return COMMAND.findall((ROOT / 'docs' / page).read_text(encoding='utf-8'))


def run(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f'{words}\n{done.stdout}{done.stderr}'


@pytest.mark.slow
def test_each_printed_command_runs_as_printed(made: Made) -> None:
    folder = made.folder
    (folder / 'videos_train').symlink_to(made.root / 'videos_train')
    (folder / 'videos_val').symlink_to(made.root / 'videos_val')
    (folder / 'clip.mp4').symlink_to(made.root / 'videos_val' / '00000_left.mp4')
    probing, calibration = commands('probing.md'), commands('calibration.md')
    assert len(probing) == 4 and len(calibration) == 3
    for command in probing:
        run(folder, *shlex.split(command)[1:])
    text = (ROOT / 'docs' / 'probing.md').read_text(encoding='utf-8')
    (code,) = re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
    run(folder, '-c', code)
    shutil.copy(folder / 'work_dirs/probe/probe.py', folder / 'config.py')
    shutil.copy(folder / 'work_dirs/probe/probe.pth', folder / 'model.pth')
    for command in calibration:
        run(folder, *shlex.split(command)[1:])
    for name in ('probe.pth', 'result.pkl', 'report.html', 'clips_per_class.png'):
        assert (folder / 'work_dirs/probe' / name).stat().st_size, name
    assert (folder / 'calibrated.pth').is_file()
