"""Requirements, pins and the version are the same in every file that states them."""

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import mmtimesformer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / 'requirements'
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
PYTHONS = ('3.10', '3.11', '3.12', '3.13')
MACHINES = (('linux', 'x86_64'), ('linux', 'aarch64'), ('darwin', 'arm64'))


def _lines(file: str) -> list[Requirement]:
    text = (REQUIREMENTS / file).read_text()
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith('#')]


def _pins(python: str, system: str, machine: str) -> dict[str, str]:
    """Return the pinned version by package that one kind of machine installs."""
    here = {'python_version': python, 'sys_platform': system, 'platform_machine': machine}
    pins = {}
    for line in _lines('constraints.txt'):
        if line.marker is None or line.marker.evaluate(here):
            name = canonicalize_name(line.name)
            assert name not in pins, f'{name} is pinned twice for {here}'
            pins[name] = re.fullmatch(r'==([^*]+)', str(line.specifier))[1]
    return pins


def _requirements(extra: str = '') -> list[Requirement]:
    lines = PROJECT['optional-dependencies'][extra] if extra else PROJECT['dependencies']
    return [Requirement(line) for line in lines]


def test_core_is_torch_what_comes_with_it_einops_and_mmengine() -> None:
    assert {line.name for line in _requirements()} == {
        'torch',
        'einops',
        'filelock',
        'mmengine',
        'numpy',
    }


@pytest.mark.parametrize(
    ('name', 'bound'), [('torch', 'TORCH_BOUND'), ('mmengine', 'MMENGINE_BOUND')]
)
def test_upper_bounds_of_private_contracts_are_those_of_doctor(name: str, bound: str) -> None:
    tool = (ROOT / 'tools' / 'doctor.py').read_text()
    (names, values) = re.search(r'^(\w+BOUND, \w+BOUND) = (.*?)  #', tool, re.MULTILINE).groups()
    bounds = dict(zip(names.split(', '), ast.literal_eval(f'({values})'), strict=True))
    (line,) = (line for line in _requirements() if line.name == name)
    assert f'<{bounds[bound]}' in str(line.specifier).split(',')


@pytest.mark.parametrize('word', ['mmcv', 'opencv', 'torchvision'])
def test_core_never_touches_an_existing_mmcv_or_opencv(word: str) -> None:
    assert not [line for line in _requirements() if word in line.name]


@pytest.mark.parametrize('file', sorted(REQUIREMENTS.glob('*.txt')), ids=lambda file: file.stem)
def test_torchvision_is_pinned_nowhere(file: Path) -> None:
    assert 'torchvision' not in {line.name for line in _lines(file.name)}


@pytest.mark.parametrize('python', PYTHONS)
@pytest.mark.parametrize('machine', MACHINES, ids=' '.join)
def test_pins_satisfy_every_requirement(python: str, machine: tuple[str, str]) -> None:
    pins = _pins(python, *machine)
    here = dict(python_version=python, sys_platform=machine[0], platform_machine=machine[1])
    for line in [
        line
        for extra in ('', 'mmaction', 'export', 'test', 'lint')
        for line in _requirements(extra)
    ]:
        if line.name == PROJECT['name'] or (line.marker and not line.marker.evaluate(here)):
            continue
        assert line.specifier.contains(pins[canonicalize_name(line.name)], prereleases=True), line


@pytest.mark.parametrize('python', PYTHONS)
def test_the_page_to_try_a_model_adds_packages_and_changes_none(python: str) -> None:
    here = dict(python_version=python, sys_platform='linux', platform_machine='x86_64')
    pins = _pins(python, 'linux', 'x86_64')
    added = [
        line for line in _lines('demo.txt') if line.marker is None or line.marker.evaluate(here)
    ]
    names = [canonicalize_name(line.name) for line in added]
    assert len(names) == len(set(names))
    assert not set(names) & set(pins)
    (gradio,) = (line for line in _requirements('demo') if line.name == 'gradio')
    (pinned,) = (line for line in added if line.name == 'gradio')
    assert gradio.specifier.contains(str(pinned.specifier).removeprefix('=='))


@pytest.mark.parametrize('python', PYTHONS)
def test_decord_is_pinned_exactly_where_it_has_a_wheel(python: str) -> None:
    assert [machine for machine in MACHINES if 'decord' in _pins(python, *machine)] == [
        ('linux', 'x86_64')
    ]


def test_environment_made_by_make_is_the_pinned_one() -> None:
    made_from = Path(sys.prefix) / 'constraints.txt'
    if not made_from.is_file():
        pytest.skip(f'{sys.prefix} was not made by make')
    for text in made_from.read_text().splitlines():
        line = Requirement(text)
        if line.marker is None or line.marker.evaluate():
            have = Version(metadata.version(line.name)).public  # without +cpu or +cu130
            assert line.specifier.contains(have, prereleases=True), f'{line}, but {have} is here'


def test_python_bounds_are_the_same_everywhere() -> None:
    classified = {
        line.rsplit(' ', 1)[1] for line in PROJECT['classifiers'] if 'Python :: 3.' in line
    }
    workflow = (ROOT / '.github' / 'workflows' / 'ci.yml').read_text()
    make_env = (REQUIREMENTS / 'make_env.py').read_text()
    assert classified == set(PYTHONS)
    assert PROJECT['requires-python'] == '>=3.10,<3.14'
    assert 'OLDEST, TOO_NEW = (3, 10), (3, 14)' in make_env
    assert f'python: {list(PYTHONS)}' in workflow


def test_version_is_a_plain_assignment_that_a_build_can_read_without_importing() -> None:
    source = ast.parse((ROOT / 'mmtimesformer' / 'version.py').read_text())
    assigned = {
        target.id: node.value
        for node in source.body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    assert ast.literal_eval(assigned['__version__']) == mmtimesformer.__version__


def test_changelog_and_citation_have_this_version() -> None:
    changelog = (ROOT / 'CHANGELOG.md').read_text()
    versions = re.findall(r'^## \[([\d.]+)\]', changelog, re.MULTILINE)
    assert versions[0] == mmtimesformer.__version__
    citation = (ROOT / 'CITATION.cff').read_text()
    assert f'\nversion: {mmtimesformer.__version__}\n' in citation


def test_every_version_of_the_changelog_speaks_of_numbers_and_keys() -> None:
    changelog = (ROOT / 'CHANGELOG.md').read_text()
    for section in re.split(r'^## ', changelog, flags=re.MULTILINE)[1:]:
        assert '### Numerics' in section, section.splitlines()[0]
        assert '### Checkpoint keys' in section, section.splitlines()[0]


def test_no_file_names_a_package_registry() -> None:
    words = ['index' + '-url', 'find' + '-links', 'trusted' + '-host']
    files = [ROOT / 'Makefile', ROOT / 'pyproject.toml', ROOT / '.ci' / 'run']
    for file in [*files, *REQUIREMENTS.iterdir()]:
        if file.is_file():
            assert not [word for word in words if word in file.read_text()], file
