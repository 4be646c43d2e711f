"""docs/huggingface.md and the Hugging Face part of docs/migration.md are true and run."""

import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mmtimesformer.inference.system_comparison import compare_systems
from tests.conftest import write_video

from .hub_folders import save_hub_folder

ROOT = Path(__file__).parents[2]


def test_the_table_of_the_page_is_what_is_measured(tmp_path: Path) -> None:
    page = (ROOT / 'docs' / 'huggingface.md').read_text().split('<!-- measured -->')[1]
    lines = [line for line in page.splitlines() if line.startswith('| ')]
    printed = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    save_hub_folder(tmp_path / 'folder', num_frames=8)
    video = write_video(tmp_path / 'video.mp4', 300, 128, 96)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        measured = compare_systems(video, tmp_path / 'folder', 'cpu').rows()
    assert measured[0] == printed[0]
    assert len(printed) == 11
    for row, expected in zip(measured[1:], printed[1:], strict=False):
        if row[0].startswith('logit'):
            assert row[0] == expected[0]
            for value, wanted in zip(row[1:], expected[1:], strict=True):
                assert abs(float(value) - float(wanted)) < 0.01  # another encoder, other pixels
        else:
            assert row == expected


def blocks() -> list[tuple[str, str]]:
    """Return the blocks of the part of a Hugging Face user, with their languages."""
    page = (ROOT / 'docs' / 'migration.md').read_text()
    section = page.split('### A folder that you fine-tuned with transformers')[1].split('\n## ')[0]
    return re.findall(r'^```(\w+)\n(.*?)^```', section, re.DOTALL | re.MULTILINE)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder and the video that the lines of the page need."""
    monkeypatch.chdir(tmp_path)
    save_hub_folder(tmp_path / 'my-finetuned-folder')
    write_video(tmp_path / 'video.mp4', 60)
    return tmp_path


def test_the_python_of_the_migration_page_runs(files: Path) -> None:
    found = [text for kind, text in blocks() if kind == 'python']
    assert len(found) == 3
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for text in found:
            exec(compile(text, 'docs/migration.md', 'exec'), {})
    assert (files / 'my-model-folder' / 'model.safetensors').is_file()


@pytest.mark.slow  # four processes
def test_the_commands_of_the_migration_page_run(files: Path) -> None:
    lines = [line for kind, text in blocks() if kind == 'bash' for line in text.splitlines()]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    for line in lines:
        words = [sys.executable, *shlex.split(line)[1:]]
        environment = {**os.environ, 'PYTHONPATH': path}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (files / 'another-folder' / 'README.md').is_file()
