"""`--help` and a mistake on the command line import no PyTorch, which takes seconds."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmtimesformer.console.tools import TOOLS, Tool, file_of

HEAVY = {'torch', 'mmengine', 'mmaction', 'mmcv', 'numpy', 'av', 'cv2', 'matplotlib', 'PIL'}
ROOT = Path(__file__).parents[2]


def imported(*words: object, code: int = 0) -> tuple[set[str], str]:
    """Run Python; return the top-level packages that it imported, and its output."""
    command = [sys.executable, '-X', 'importtime', *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith('import time:')]
    assert len(lines) > 50
    return {line.rpartition('|')[2].strip().partition('.')[0] for line in lines}, done.stdout


@pytest.mark.parametrize('tool', TOOLS, ids=[tool.name for tool in TOOLS])
def test_the_help_of_a_tool_imports_no_heavy_package(tool: Tool) -> None:
    for start in ([file_of(tool)], ['-m', 'mmtimesformer', tool.name]):
        names, output = imported(*start, '--help')
        assert output.startswith('usage: ')
        assert not names & HEAVY, start


@pytest.mark.parametrize('start', [['-m', 'mmtimesformer', 'prepare'], ['tools/data/prepare.py']])
def test_the_help_of_a_data_set_imports_no_heavy_package(start: list[str]) -> None:
    names, output = imported(*start, 'kinetics', '--help')
    assert '{400,600,700}' in output
    assert not names & HEAVY


def test_a_mistake_on_the_command_line_imports_no_heavy_package() -> None:
    assert not imported('tools/predict.py', code=2)[0] & HEAVY
    assert not imported('tools/train.py', 'c.py', '--amp', 'fp8', code=2)[0] & HEAVY


def test_a_tool_registers_the_components_once_its_command_line_is_read(tmp_path: Path) -> None:
    tool = 'tools/analysis_tools/report.py'
    names, _ = imported(tool, tmp_path, code=1)
    assert {'torch', 'mmengine'} <= names


def test_a_process_that_a_tool_spawns_has_the_components(tmp_path: Path) -> None:
    """Python runs the file of the tool there too, under the name __mp_main__."""
    tool = file_of(next(tool for tool in TOOLS if tool.name == 'report'))
    (tmp_path / 'job.py').write_text(
        'import sys\n'
        'def has_components():\n'
        '    return "__mp_main__" in sys.modules and "mmtimesformer.models" in sys.modules\n'
    )
    code = (
        'import multiprocessing, runpy, sys\n'
        f'sys.path.insert(0, {str(tmp_path)!r})\n'
        'import job\n'
        f'sys.argv[0] = sys.modules["__main__"].__file__ = {str(tool)!r}\n'
        'with multiprocessing.get_context("spawn").Pool(1) as pool:\n'
        '    print(pool.apply(job.has_components))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == 'True\n', done.stderr[-2000:]


def of(tool: str) -> dict[str, Any]:
    """Return what the file of a tool defines."""
    return runpy.run_path(str(ROOT / 'tools' / tool), run_name='read')


def test_choices_and_defaults_of_the_tools_are_those_of_the_package() -> None:
    """The tools repeat them, since their own modules import PyTorch."""
    from mmtimesformer.checkpoints.convert import ATTENTION_TYPES, WRITABLE
    from mmtimesformer.datasets.preparation import moving_figures, publishers
    from mmtimesformer.datasets.preparation.moving_shapes import Settings
    from mmtimesformer.datasets.preparation.transcoding import PRESETS
    from mmtimesformer.finetuning.label_studio import LOCAL_FILES
    from mmtimesformer.finetuning.labels_csv import SEPARATOR
    from mmtimesformer.resize import MODES

    convert = of('convert_checkpoint.py')
    assert convert['FORMATS'] == WRITABLE
    assert convert['ATTENTION_TYPES'] == ATTENTION_TYPES
    assert convert['RESIZES'] == MODES
    presets = {name: (preset.short_side, preset.gop) for name, preset in PRESETS.items()}
    assert of('data/transcode.py')['PRESETS'] == presets
    shapes, demo = of('data/moving_shapes.py'), of('demo.py')
    assert Settings(shapes['NUM_TRAIN'], shapes['NUM_VAL'], shapes['SEED']) == Settings()
    assert Settings(demo['NUM_TRAIN'], demo['NUM_VAL']) == Settings()
    figures = of('data/moving_figures.py')
    names = ('NUM_TRAIN', 'NUM_VAL', 'SEED', 'WIDTH', 'HEIGHT', 'NUM_FRAMES')
    assert moving_figures.Settings(*(figures[name] for name in names)) == moving_figures.Settings()
    labels = of('data/labels.py')
    assert (labels['LOCAL_FILES'], labels['SEPARATOR']) == (LOCAL_FILES, SEPARATOR)
    prepare = of('data/prepare.py')
    assert prepare['KINETICS'] == tuple(sorted(publishers.KINETICS))
    assert all(callable(getattr(publishers, f'read_{name}')) for name in prepare['PLAIN'])
