"""ViT-B/16 and TimeSformer-B with random weights, through every reader and every writer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import IMAGE_FILES, VIDEO_FILES, random_weights

ROOT = Path(__file__).resolve().parents[2]
MEASURED = r"""
import contextlib, importlib.util, io, json, re, sys, time
spec = importlib.util.spec_from_file_location('tool', 'tools/convert_checkpoint.py')
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    code = tool.main(sys.argv[1:])
seconds = time.perf_counter() - start
# Not ru_maxrss, which a process inherits from the one that started it.
peak = int(re.search(r'VmHWM:\s*(\d+) kB', open('/proc/self/status').read())[1]) * 1024
print(json.dumps({'code': code, 'seconds': seconds, 'peak': peak}))
"""
SIZE = {'width': 768, 'depth': 12, 'patch': 16, 'grid': 14}


def _convert(source: Path, target: Path, *flags: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, '-c', MEASURED, str(source), str(target), *flags],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _report(what: str, source: Path, measured: dict[str, float]) -> None:
    size = source.stat().st_size
    print(
        f'| {what} | {size / 1e6:.0f} MB | {measured["seconds"]:.1f} s | '
        f'{measured["peak"] / 1e6:.0f} MB | {measured["peak"] / size:.2f} |'
    )


@pytest.mark.slow
@pytest.mark.parametrize('kind', VIDEO_FILES)
def test_timesformer_b_is_read_within_two_and_a_half_times_its_size(kind, tmp_path) -> None:
    source = tmp_path / 'source'
    VIDEO_FILES[kind](random_weights(**SIZE), source)
    measured = _convert(source, tmp_path / 'target.pth')
    _report(kind, source, measured)
    assert measured['code'] == 0
    assert measured['peak'] < 2.5 * source.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize('kind', IMAGE_FILES)
def test_vit_b_16_is_read_and_seeded(kind, tmp_path) -> None:
    """The result is 1.4 times as large as the source, and has to be held."""
    source = tmp_path / 'source'
    weights = random_weights('space_only', **SIZE)
    if 'jax' in kind or 'big_vision' in kind:
        import numpy as np

        from .conftest import as_jax, as_scanned

        arrays = as_jax(weights, heads=12, big_vision='big_vision' in kind)
        arrays = as_scanned(arrays) if 'scanned' in kind else arrays
        with source.open('wb') as file:
            np.savez(file, **arrays)
    else:
        IMAGE_FILES[kind](weights, source)
    measured = _convert(source, tmp_path / 'target.pth')
    _report(kind, source, measured)
    assert measured['code'] == 0
    assert measured['peak'] < 1.4e9


@pytest.mark.slow
@pytest.mark.parametrize('ending', ['.pth', '.safetensors', ''])
@pytest.mark.parametrize('to', ['mmtimesformer', 'official', 'mmaction2', 'huggingface'])
def test_timesformer_b_is_written_within_two_and_a_half_times_its_size(
    to, ending, tmp_path
) -> None:
    if not ending and to != 'huggingface':
        pytest.skip('only Hugging Face takes a folder')
    source = tmp_path / 'source'
    VIDEO_FILES['official'](random_weights(**SIZE), source)
    measured = _convert(source, tmp_path / f'target{ending}', '--to', to)
    _report(f'{to} {ending or "folder"}', source, measured)
    assert measured['code'] == 0
    assert measured['peak'] < 2.5 * source.stat().st_size
