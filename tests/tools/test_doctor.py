"""Each known problem is found on a machine that has it; the reference stack has none."""

import importlib.util
import json
import subprocess
import sys
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
    ('mmcv is a empty folder', lambda machine: machine.modules.update(mmcv=None), ()),
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
    ('imgaug under NumPy 2', _install(imgaug='0.4.0'), ()),
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
        assert trap.fix.startswith(('pip ', 'make '))


def test_these_traps_do_not_break_training_or_testing() -> None:
    assert [trap.name for trap in doctor.TRAPS if not trap.breaks] == [
        "MMAction2 1.2.0's wheel lacks a module",
        'two OpenCVs',
        'torch before 2.10',
        'torch newer than its bound',
        'MMEngine newer than its bound',
        'MMEngine before 0.11',
        'MMEngine before 0.11 without pkg_resources',
        'mim without pkg_resources',
        'moviepy 2',
        "MMAction2's ColorJitter under NumPy 2",
        'imgaug under NumPy 2',
        'a fork under the original name',
    ]


def test_mmaction2_1_2_0_from_git_has_no_trap(healthy: Machine) -> None:
    _turn_into_1_2_0(healthy)
    drn = healthy.modules['mmaction'] / 'models' / 'localizers' / 'drn'
    drn.mkdir()
    (drn / 'drn.py').write_text('class DRN: ...\n')
    assert _traps_of(healthy) == set()


def test_a_version_next_to_a_trap_is_no_trap(healthy: Machine) -> None:
    healthy.versions |= {'torchvision': '0.28.0+cpu', 'moviepy': '1.0.3', 'torch': '2.10.0+cpu'}
    healthy.versions |= {'openmim': '0.3.9', 'setuptools': '80.9.0'}
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
    assert 'mmcv is a empty folder' in _traps_of(machine)


def test_bare_python_gets_a_report_and_not_a_stack_trace() -> None:
    run = subprocess.run(
        [sys.executable, '-I', '-S', TOOL], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert 'no torch, no einops, no numpy, no mmengine' in run.stdout
    assert run.stderr == ''
