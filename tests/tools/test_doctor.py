"""Each known problem is found on a machine that has it; the reference stack has none."""

import importlib.util
import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'doctor.py'


def _load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('doctor', TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules['doctor'] = module  # dataclasses need it there
    spec.loader.exec_module(module)
    return module


doctor = _load_tool()
Machine = doctor.Machine


@pytest.fixture
def healthy(tmp_path: Path) -> Machine:
    """A machine of the reference stack, with the files of MMAction2 that traps read."""
    mmaction = tmp_path / 'mmaction'
    (mmaction / 'models' / 'localizers').mkdir(parents=True)
    (mmaction / '__init__.py').write_text(
        "mmcv_minimum_version = '2.0.0rc4'\nmmcv_maximum_version = '2.1.0'\n"
        "mmengine_minimum_version = '0.7.1'\nmmengine_maximum_version = '1.0.0'\n"
    )
    (mmaction / 'models' / 'localizers' / '__init__.py').write_text('from .bmn import BMN\n')
    (mmaction / '.mim').mkdir()
    (mmaction / '.mim' / 'model-index.yml').write_text('Import: []\n')
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch' / '__init__.py').write_text('# torch\n')
    names = ('torch', 'einops', 'numpy', 'mmengine', 'mmcv', 'decord', 'av')
    return Machine(
        python=(3, 11),
        system=('linux', 'x86_64'),
        versions={
            'torch': '2.13.0+cpu',
            'einops': '0.8.2',
            'numpy': '2.4.6',
            'mmengine': '0.11.0rc3',
            'mmaction2': '1.1.0',
            'mmcv-lite': '2.0.1',
            'decord': '0.6.0',
            'av': '18.1.0',
            'opencv-contrib-python': '5.0.0.93',
            'transformers': '5.23.0',
            'setuptools': '84.2.1',
        },
        modules={'mmaction': mmaction, **{name: tmp_path / name for name in names}},
    )


def _turn_into_1_2_0(machine: Machine) -> None:
    machine.versions |= {'mmaction2': '1.2.0', 'mmcv-lite': '2.1.0', 'importlib-metadata': '9.0.0'}
    machine.modules['importlib_metadata'] = Path('importlib_metadata')
    del machine.versions['transformers']
    folder = machine.modules['mmaction']
    text = (folder / '__init__.py').read_text().replace("'2.1.0'", "'2.2.0'")
    (folder / '__init__.py').write_text(text)
    (folder / 'models/localizers/__init__.py').write_text('from .drn.drn import DRN\n')
    (folder / 'utils').mkdir()
    (folder / 'utils/dependency.py').write_text(
        'from importlib_metadata import distribution\nWITH_MULTIMODAL = False\n'
    )


def _remove_importlib_metadata(machine: Machine) -> None:
    _turn_into_1_2_0(machine)
    del machine.modules['importlib_metadata'], machine.versions['importlib-metadata']


def _add_transformers(machine: Machine) -> None:
    _turn_into_1_2_0(machine)
    machine.versions['transformers'] = '5.23.0'


def _remove(*names: str) -> Callable[[Machine], None]:
    def change(machine: Machine) -> None:
        for name in names:
            machine.versions.pop(name, None)
            machine.modules.pop(name, None)

    return change


def _install(**versions: str) -> Callable[[Machine], None]:
    pinned = {name.replace('_', '-'): version for name, version in versions.items()}
    return lambda machine: machine.versions.update(pinned)


def _move_to_arm_without_mmaction(machine: Machine) -> None:
    machine.system = ('linux', 'aarch64')
    _remove('decord', 'mmaction2', 'mmaction')(machine)


def _add_color_jitter(machine: Machine) -> None:
    folder = machine.modules['mmaction'] / 'datasets' / 'transforms'
    folder.mkdir(parents=True)
    (folder / 'processing.py').write_text('hsv[..., 0] = (hsv[..., 0] + offset) % 180\n')


def _add_old_names(machine: Machine) -> None:
    folder = machine.modules['mmaction'] / 'datasets' / 'transforms'
    folder.mkdir(parents=True)
    (folder / 'pose_transforms.py').write_text('initial=np.Inf\n')


def _clone_1_2_0(machine: Machine) -> None:
    _turn_into_1_2_0(machine)
    drn = machine.modules['mmaction'] / 'models' / 'localizers' / 'drn'
    (drn / 'drn_utils').mkdir(parents=True)
    (drn / 'drn.py').write_text('class DRN: ...\n')
    (drn / 'drn_utils' / 'loss.py').write_text('import torchvision\n')


def _list_several_configs(machine: Machine) -> None:
    folder = machine.modules['mmaction'] / '.mim/configs/localization/bsn'
    folder.mkdir(parents=True)
    (folder / 'metafile.yml').write_text('Models:\n  - Name: a\n    Config:\n      - a.py\n')
    config = machine.modules['mmengine'] / 'config'
    config.mkdir(parents=True)
    (config / 'utils.py').write_text("cfg_name = model_cfg['Config'].partition('/')[-1]\n")


def _install_pytorchvideo(machine: Machine) -> None:
    machine.versions |= {'pytorchvideo': '0.1.5', 'torchvision': '0.28.0+cpu'}
    folder = machine.modules['torch'].parent / 'pytorchvideo'
    (folder / 'transforms').mkdir(parents=True)
    text = 'import torchvision.transforms.functional_tensor\n'
    (folder / 'transforms' / 'augmentations.py').write_text(text)
    machine.modules['pytorchvideo'] = folder


def _remove_file(module: str, file: str) -> Callable[[Machine], None]:
    return lambda machine: (machine.modules[module] / file).unlink()


# What gives a healthy machine each trap. Traps that come along with it follow in the third column.
GIVES = [
    ('wrong Python', lambda machine: setattr(machine, 'python', (3, 14)), ()),
    ('core packages missing', _remove('einops'), ()),
    ('MMAction2 missing', _remove('mmaction2', 'mmaction'), ()),
    (
        'MMAction2 missing, and no decord for this machine',
        _move_to_arm_without_mmaction,
        (),
    ),
    ('mmcv missing', _remove('mmcv', 'mmcv-lite'), ()),
    ('mmcv is an empty folder', lambda machine: machine.modules.update(mmcv=None), ()),
    ('mmcv and mmcv-lite side by side', _install(mmcv='2.0.1'), ()),
    ('mmcv of a version that MMAction2 refuses', _install(mmcv_lite='2.2.0'), ()),
    (
        'MMEngine of a version that MMAction2 refuses',
        _install(mmengine='1.0.0'),
        ('MMEngine newer than its bound',),
    ),
    ("MMAction2 1.2.0's wheel lacks a module", _turn_into_1_2_0, ()),
    (
        'MMAction2 1.2.0 lacks a requirement',
        _remove_importlib_metadata,
        ("MMAction2 1.2.0's wheel lacks a module",),
    ),
    (
        'MMAction2 1.2.0 with transformers',
        _add_transformers,
        ("MMAction2 1.2.0's wheel lacks a module",),
    ),
    ('two OpenCVs', _install(opencv_python='5.0.0.93'), ()),
    ('decord and decord2 side by side', _install(decord2='3.0.0'), ()),
    ('no video reader', _remove('decord', 'av'), ()),
    ('torchvision of another build than torch', _install(torchvision='0.28.0'), ()),
    ('torch before 2.10', _install(torch='2.9.1'), ()),
    ('torch newer than its bound', _install(torch='2.14.0'), ()),
    ('MMEngine newer than its bound', _install(mmengine='0.12.0'), ()),
    (
        'MMEngine before 0.11',
        lambda machine: (
            machine.versions.update(mmengine='0.10.7'),
            machine.modules.update(pkg_resources=Path('pkg_resources')),
        ),
        (),
    ),
    (
        'MMEngine before 0.11 without pkg_resources',
        _install(mmengine='0.10.7'),
        ('MMEngine before 0.11',),
    ),
    ('mim without pkg_resources', _install(openmim='0.3.9'), ()),
    ('moviepy 2', _install(moviepy='2.1.0'), ()),
    ("MMAction2's ColorJitter under NumPy 2", _add_color_jitter, ()),
    ('names that NumPy 2 removed', _add_old_names, ()),
    ('imgaug under NumPy 2', _install(imgaug='0.4.0'), ()),
    ('a git clone of MMAction2 1.2.0 without torchvision', _clone_1_2_0, ()),
    ('MMAction2 without its configs', _remove_file('mmaction', '.mim/model-index.yml'), ()),
    ("a list in MMAction2's metafiles", _list_several_configs, ()),
    (
        'torchcodec for CUDA next to a torch for CPUs',
        _install(torchcodec='0.17.0'),
        (),
    ),
    ('setuptools before 77', _install(setuptools='60.2.0'), ()),
    ('pytorchvideo with a torchvision it does not know', _install_pytorchvideo, ()),
    ("seaborn with MMAction2's analyze_logs.py", _install(seaborn='0.13.2'), ()),
    ('a fork under the original name', _install(onedl_mmengine='0.11.0'), ()),
]


def _traps_of(machine: Machine) -> set[str]:
    return {trap.name for trap in doctor.TRAPS if trap.find(machine)}


def test_reference_stack_has_no_trap(healthy: Machine) -> None:
    assert _traps_of(healthy) == set()


@pytest.mark.parametrize(('name', 'change', 'company'), GIVES, ids=[row[0] for row in GIVES])
def test_a_trap_is_found_and_no_other_one(
    healthy: Machine, name: str, change: Callable[[Machine], object], company: tuple[str, ...]
) -> None:
    change(healthy)
    assert _traps_of(healthy) == {name, *company}


def test_every_trap_has_a_machine_above() -> None:
    assert [trap.name for trap in doctor.TRAPS] == [name for name, _, _ in GIVES]


def test_every_trap_has_an_effect_and_a_command_that_fixes_it() -> None:
    for trap in doctor.TRAPS:
        assert trap.happens.endswith('.')
        assert trap.fix.startswith(('pip ', 'make ', 'none: ', 'leave out '))
        assert not trap.handled or not trap.breaks


def test_safe_fixes_are_pip_commands_that_never_name_torch() -> None:
    for trap in doctor.TRAPS:
        if not trap.safe:
            continue
        for command in doctor.commands_of(trap.fix):
            assert command[:3] == [sys.executable, '-m', 'pip']
            assert command[3] in ('install', 'uninstall')
            assert command[3] == 'install' or command[4] == '-y'
            assert 'torch' not in {word.partition('=')[0] for word in command}


def test_these_traps_break_training_or_testing() -> None:
    assert [trap.name for trap in doctor.TRAPS if trap.breaks] == [
        'wrong Python',
        'core packages missing',
        'MMAction2 missing',
        'MMAction2 missing, and no decord for this machine',
        'mmcv missing',
        'mmcv is an empty folder',
        'mmcv and mmcv-lite side by side',
        'mmcv of a version that MMAction2 refuses',
        'MMEngine of a version that MMAction2 refuses',
        'decord and decord2 side by side',
        'no video reader',
        'torchvision of another build than torch',
    ]


def test_these_traps_are_handled_by_importing_the_package() -> None:
    """Each has its module in mmtimesformer/compat, or the checkpoint reader."""
    assert [trap.name for trap in doctor.TRAPS if trap.handled] == [
        "MMAction2 1.2.0's wheel lacks a module",
        'MMAction2 1.2.0 lacks a requirement',
        'MMAction2 1.2.0 with transformers',
        'MMEngine before 0.11',
        'MMEngine before 0.11 without pkg_resources',
        "MMAction2's ColorJitter under NumPy 2",
        'names that NumPy 2 removed',
        'a git clone of MMAction2 1.2.0 without torchvision',
        "a list in MMAction2's metafiles",
    ]


def test_mmaction2_1_2_0_from_git_has_no_trap(healthy: Machine) -> None:
    _turn_into_1_2_0(healthy)
    drn = healthy.modules['mmaction'] / 'models' / 'localizers' / 'drn'
    drn.mkdir()
    (drn / 'drn.py').write_text('class DRN: ...\n')
    assert _traps_of(healthy) == set()


def test_a_version_next_to_a_trap_is_no_trap(healthy: Machine) -> None:
    healthy.versions |= {'torchvision': '0.28.0+cpu', 'moviepy': '1.0.3', 'torch': '2.10.0+cpu'}
    healthy.versions |= {'openmim': '0.3.9', 'setuptools': '80.9.0', 'torchcodec': '0.13.0'}
    healthy.modules['pkg_resources'] = Path('pkg_resources')
    assert _traps_of(healthy) == set()


@pytest.mark.parametrize(
    ('older', 'newer'),
    [
        ('2.9.1', '2.10'),
        ('0.11.0rc3', '0.11.0'),
        ('0.11.0.dev1', '0.11.0a1'),
        ('2.0.0rc4', '2.0.1'),
        ('2.13.0+cpu', '2.13.1'),
    ],
)
def test_versions_sort_as_pip_sorts_them(older: str, newer: str) -> None:
    assert doctor.order(older) < doctor.order(newer)


def test_trailing_zeros_and_local_labels_do_not_change_a_version() -> None:
    assert doctor.order('2.10') == doctor.order('2.10.0') == doctor.order('2.10.0+cu130')


@pytest.mark.parametrize(('change', 'code'), [(_remove('av'), 0), (_remove('torch'), 1)])
def test_exit_code_is_1_only_where_training_breaks(
    healthy: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Machine], object],
    code: int,
) -> None:
    change(healthy)
    healthy.versions['moviepy'] = '2.1.0'  # does not break training
    monkeypatch.setattr(doctor, 'inspect_machine', lambda: healthy)
    assert doctor.main([]) == code
    text = capsys.readouterr().out
    assert 'BEWARE  moviepy 2: moviepy 2.1.0' in text
    assert "fix: pip install 'moviepy<2'" in text


def test_json_has_versions_and_traps(
    healthy: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy.versions['mmcv'] = '2.2.0'
    monkeypatch.setattr(doctor, 'inspect_machine', lambda: healthy)
    assert doctor.main(['--json']) == 1
    words = json.loads(capsys.readouterr().out)
    assert words['versions']['mmaction2'] == '1.1.0'
    assert words['versions']['moviepy'] is None
    assert 'mmcv and mmcv-lite side by side' in {trap['name'] for trap in words['traps']}


def test_a_folder_without_init_counts_as_an_empty_mmcv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'mmcv' / 'ops').mkdir(parents=True)
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    machine = doctor.inspect_machine()
    assert machine.modules == {'mmcv': None}
    assert 'mmcv is an empty folder' in _traps_of(machine)


def test_bare_python_gets_a_report_and_not_a_stack_trace() -> None:
    run = subprocess.run(
        [sys.executable, '-I', '-S', TOOL], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert 'no torch, no einops, no numpy, no mmengine' in run.stdout
    assert run.stderr == ''


class Pip:
    """Stands in for pip: records each command, and changes a machine as ``effects`` say."""

    def __init__(self, machine: Machine, effects: dict[str, Callable[[Machine], object]]) -> None:
        self.machine, self.effects = machine, effects
        self.commands: list[list[str]] = []
        self.constraints: list[str] = []
        self.fails = ''

    def __call__(self, command: list[str]) -> str:
        self.commands.append(command[3:])
        if '--constraint' in command:
            self.constraints.append(Path(command[command.index('--constraint') + 1]).read_text())
        words = ' '.join(command)
        if self.fails and self.fails in words:
            return 'ERROR: No matching distribution'
        for part, effect in self.effects.items():
            if part in words and '--dry-run' not in command:
                effect(self.machine)
        return ''


@pytest.fixture
def pip(healthy: Machine, monkeypatch: pytest.MonkeyPatch) -> Pip:
    """A machine with two fixable traps and one that only the user may fix, in an environment."""
    healthy.versions |= {'decord2': '3.0.0', 'torchvision': '0.28.0', 'imgaug': '0.4.0'}
    effects = {
        'uninstall -y torchvision': _remove('torchvision'),
        'uninstall -y decord': _remove('decord2'),
    }
    stand_in = Pip(healthy, effects)
    monkeypatch.setattr(doctor, 'inspect_machine', lambda: healthy)
    monkeypatch.setattr(doctor, 'run_pip', stand_in)
    monkeypatch.setattr(doctor, 'is_environment', lambda: True)
    return stand_in


def test_fix_runs_the_safe_commands_and_exits_by_the_state_after(
    pip: Pip, capsys: pytest.CaptureFixture[str]
) -> None:
    assert doctor.main([]) == 1
    assert doctor.main(['--fix', '--yes']) == 0
    commands = [' '.join(command) for command in pip.commands]
    assert commands[0].startswith('install decord==0.6.0 --constraint')
    assert commands[0].endswith('--dry-run --ignore-installed --no-deps -q')
    assert commands[1] == 'uninstall -y decord decord2'
    assert commands[2].startswith('install decord==0.6.0 --constraint')
    assert commands[3:] == ['uninstall -y torchvision']
    assert pip.constraints == ['torch==2.13.0+cpu\n'] * 2
    text = capsys.readouterr().out
    assert '  python -m pip uninstall -y torchvision' in text
    assert 'BEWARE  imgaug under NumPy 2' in text and '2 of 2 fixes were applied' in text


def test_nothing_is_changed_where_pip_cannot_install_what_a_fix_needs(
    pip: Pip, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.fails = 'decord==0.6.0'
    assert doctor.main(['--fix', '--yes']) == 1
    assert ['uninstall', '-y', 'decord', 'decord2'] not in pip.commands
    assert 'torchvision' not in pip.machine.versions
    text = capsys.readouterr().out
    assert 'failed, nothing was changed: ERROR: No matching distribution' in text
    assert '1 of 2 fixes were applied' in text


@pytest.mark.parametrize(('answer', 'runs'), [('y', True), ('', False), ('no', False)])
def test_fix_asks_first(pip: Pip, monkeypatch: pytest.MonkeyPatch, answer: str, runs: bool) -> None:
    monkeypatch.setattr('builtins.input', lambda question: answer)
    assert doctor.main(['--fix']) == (0 if runs else 2)
    assert bool(pip.commands) is runs


def test_fix_without_a_terminal_changes_nothing_and_names_yes(
    pip: Pip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_input(question: str) -> str:
        raise EOFError

    monkeypatch.setattr('builtins.input', no_input)
    assert doctor.main(['--fix']) == 2
    assert pip.commands == []
    assert 'give --yes' in capsys.readouterr().out


def test_fix_refuses_the_python_of_the_system(
    pip: Pip, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, 'is_environment', lambda: False)
    assert doctor.main(['--fix', '--yes']) == 2
    assert pip.commands == []
    assert 'is not in a virtual environment' in capsys.readouterr().err


def test_a_fix_that_an_earlier_one_made_needless_is_not_run(
    pip: Pip, capsys: pytest.CaptureFixture[str]
) -> None:
    pip.effects['uninstall -y decord'] = _remove('decord2', 'torchvision')
    assert doctor.main(['--fix', '--yes']) == 0
    assert ['uninstall', '-y', 'torchvision'] not in pip.commands


def test_fix_with_nothing_to_fix_asks_nothing(
    healthy: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, 'inspect_machine', lambda: healthy)
    monkeypatch.setattr(doctor, 'is_environment', lambda: True)
    assert doctor.main(['--fix']) == 0
    assert '0 of 0 fixes' in capsys.readouterr().out


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f'{sys.executable} {TOOL} --json | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(['bash', '-c', command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1) and done.stderr == ''


@pytest.mark.parametrize('words', [['--yes'], ['--fix', '--json']])
def test_options_that_do_not_go_together_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        doctor.main(words)
    assert end.value.code == 2


def test_an_environment_is_a_virtual_one_or_one_of_conda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, 'base_prefix', str(tmp_path))
    assert doctor.is_environment()
    conda = tmp_path / 'envs' / 'mine'
    for folder, expected in ((tmp_path, False), (conda, True)):
        (folder / 'conda-meta').mkdir(parents=True)
        monkeypatch.setattr(sys, 'prefix', str(folder))
        monkeypatch.setattr(sys, 'base_prefix', str(folder))
        assert doctor.is_environment() is expected


def _write_wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel that contains its metadata and the file ``cv2/__init__.py``."""
    info = f'{name.replace("-", "_")}-{version}.dist-info'
    files = {
        'cv2/__init__.py': '',
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    record = ''.join(f'{file},,\n' for file in [*files, f'{info}/RECORD'])
    path = folder / f'{name.replace("-", "_")}-{version}-py3-none-any.whl'
    with zipfile.ZipFile(path, 'w') as wheel:
        for file, text in {**files, f'{info}/RECORD': record}.items():
            wheel.writestr(file, text)


@pytest.mark.slow
def test_fix_repairs_a_real_environment(tmp_path: Path) -> None:
    wheels = tmp_path / 'wheels'
    wheels.mkdir()
    for name in ('opencv-python', 'opencv-contrib-python'):
        _write_wheel(wheels, name, '5.0.0')
    environment = os.environ | {'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': str(wheels)}
    environment.pop('PYTHONPATH', None)
    venv.create(tmp_path / 'env', with_pip=True)
    python = tmp_path / 'env' / 'bin' / 'python'

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [python, *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    assert run('-m', 'pip', 'install', 'opencv-python', 'opencv-contrib-python').returncode == 0
    assert 'two OpenCVs' in run(TOOL).stdout
    asked = run(TOOL, '--fix')
    assert asked.returncode == 2 and 'nothing was changed' in asked.stdout
    fixed = run(TOOL, '--fix', '--yes')
    assert fixed.returncode == 1, fixed.stdout + fixed.stderr  # no torch in this environment
    assert 'two OpenCVs' not in run(TOOL).stdout
    assert 'opencv-contrib-python' in run('-m', 'pip', 'list').stdout
    assert run('-c', 'import cv2').returncode == 0


def test_doctor_by_name_runs_where_the_package_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / 'mmengine').mkdir()
    (tmp_path / 'mmengine' / '__init__.py').write_text('raise AttributeError("broken")\n')
    environment = os.environ | {'PYTHONPATH': f'{tmp_path}{os.pathsep}{TOOL.parents[1]}'}
    for words, code, found in (
        (['doctor', '--json'], 0, '"traps"'),
        (['predict', 'a', 'b'], 1, 'broken'),
    ):
        run = subprocess.run(
            [sys.executable, '-m', 'mmtimesformer', *words],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == code, run.stderr
        assert found in run.stdout + run.stderr
