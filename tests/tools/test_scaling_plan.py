"""The arithmetic of benchmarks/scaling_plan.py, and the tables of docs/scaling.md made by it."""

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / 'benchmarks/scaling_plan.py'))


def test_the_document_shows_what_the_script_prints(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert script['main']([]) == 0
    printed = [line.strip('|').split('|') for line in capsys.readouterr().out.splitlines()]
    rows = [[cell.strip() for cell in row] for row in printed if len(row) == 11][2:]
    text = (ROOT / 'docs/scaling.md').read_text(encoding='utf-8')
    assert len(rows) == 15
    for row in rows:
        name, gpus, clips, compute, reduce, step, _, _, cores, storage, epoch = row
        shown = [name, gpus, f'{int(clips):,}', compute, reduce, step, cores, storage, epoch]
        assert f'| {" | ".join(shown)} |' in text


def test_one_gpu_sends_nothing_and_more_send_nearly_twice_their_gradients(
    script: dict[str, Any],
) -> None:
    work, machines = script['WORKS'][0], script['Machines']()
    sent = [script['plan'](work, machines, n, 1e9, 1.0).sent for n in (1, 2, 512)]
    assert sent[0] == 0
    assert sent[1] == pytest.approx(4e9)  # half of the gradients, twice
    assert sent[2] == pytest.approx(8e9, rel=0.01)


def test_a_step_is_longer_by_what_does_not_fit_under_the_backward_pass(
    script: dict[str, Any],
) -> None:
    work = script['WORKS'][0]
    fast, slow = (script['Machines'](network=network) for network in (1e6, 1.0))
    one = script['plan'](work, fast, 64, 121e6, 1.0)
    assert one.step == one.compute == work.batch / fast.clips
    other = script['plan'](work, slow, 64, 121e6, 1.0)
    assert other.step == pytest.approx(other.compute / 3 + other.all_reduce)


def test_a_figure_that_cannot_be_is_told(
    script: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        script['main'](['--network', '0'])
    assert '--network 0.0 must be above 0' in capsys.readouterr().err
