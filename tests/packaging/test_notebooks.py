"""The notebooks run as they are; their stored outputs are complete, small and of no machine."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmtimesformer.console.tools import file_of, find_tool
from tests.packaging.scripts import ROOT, load_script
from tests.packaging.test_docs import FILE
from tests.packaging.test_metadata import PYTHONS, _lines, _pins
from tests.packaging.test_plain_english import in_document

runner = load_script('tools/dev/run_notebooks.py')
PAGES = [ROOT / 'docs/notebooks.md', ROOT / 'docs/zh_cn/notebooks.md']
LARGEST = 300 * 1024  # bytes of a notebook
COMMAND = re.compile(r'python -m mmtimesformer (\w+ [^`|>\n]+)')
# Folders of a machine, the folder of an environment, terminal escapes
OF_A_MACHINE = re.compile(r'/(?:tmp|home|root|Users|work|var|private|usr|opt)/|site-packages|\x1b')

each = pytest.mark.parametrize('notebook', runner.NOTEBOOKS, ids=lambda path: path.stem)


def _cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    return [cell for cell in cells if cell['cell_type'] == kind]


def _text(cell: dict[str, Any]) -> str:
    return ''.join(cell['source'])


def _outputs(notebook: Path) -> Iterator[dict[str, Any]]:
    for cell in _cells(notebook, 'code'):
        yield from cell['outputs']


def _texts_of(output: dict[str, Any]) -> Iterator[str]:
    """Give all texts of an output; pictures are no texts."""
    yield ''.join(output.get('text', ''))
    for kind, value in output.get('data', {}).items():
        if not kind.startswith('image/'):
            yield ''.join(value)


def test_there_are_four_notebooks_in_order() -> None:
    assert [path.name[:2] for path in runner.NOTEBOOKS] == ['1_', '2_', '3_', '4_']


@each
def test_notebook_has_the_form_of_version_4(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding='utf-8'))
    assert (content['nbformat'], content['nbformat_minor']) == (4, 5)
    assert set(content['metadata']) == {'kernelspec', 'language_info'}
    assert content['metadata']['language_info'] == {'name': 'python'}
    names = [cell['id'] for cell in content['cells']]
    assert len(names) == len(set(names))
    for cell in content['cells']:
        code = {'execution_count', 'outputs'} if cell['cell_type'] == 'code' else set()
        assert set(cell) == {'id', 'cell_type', 'metadata', 'source'} | code
        assert not cell['metadata']


@each
def test_first_cell_states_what_is_needed_and_how_long_it_takes(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding='utf-8'))
    title, code = _text(content['cells'][0]), _text(content['cells'][1])
    assert title.startswith('# ')
    assert '**You need:**' in title and re.search(r'\*\*It takes:\*\* about \d minutes', title)
    assert '# %pip install "mmtimesformer[mmaction]"' in code


@each
def test_outputs_are_complete_and_of_one_run(notebook: Path) -> None:
    cells = _cells(notebook, 'code')
    assert [cell['execution_count'] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output['output_type'] for output in _outputs(notebook)}
    assert 'error' not in kinds
    assert not [output for output in _outputs(notebook) if output.get('name') == 'stderr']


@each
def test_outputs_are_small_and_the_last_picture_is_on_the_page(notebook: Path) -> None:
    pictures = runner.pictures_of(json.loads(notebook.read_text(encoding='utf-8')))
    assert len(pictures) >= 2
    assert max(map(len, pictures)) <= runner.LARGEST_PICTURE
    assert notebook.stat().st_size <= LARGEST
    picture = runner.picture_file(notebook)
    assert picture.read_bytes() == pictures[-1]
    for page in PAGES:
        assert f'images/{picture.name})' in page.read_text()
        assert f'notebooks/{notebook.name})' in page.read_text()


@each
def test_outputs_hold_no_path_of_a_machine(notebook: Path) -> None:
    texts = [text for output in _outputs(notebook) for text in _texts_of(output)]
    assert [found[0] for text in texts for found in OF_A_MACHINE.finditer(text)] == []


@each
def test_text_is_in_plain_english(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    assert [hit for cell in cells for hit in in_document(_text(cell))] == []


@each
def test_commands_name_tools_and_options_that_exist(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    commands = [words for cell in cells for words in COMMAND.findall(_text(cell))]
    assert commands
    for words in commands:
        name, *arguments = shlex.split(words)
        file = file_of(find_tool(name))
        load_script(str(file.relative_to(ROOT))).parse_args(arguments)


@each
def test_files_of_the_repository_that_are_named_exist(notebook: Path) -> None:
    for cell in _cells(notebook, 'markdown'):
        for name in FILE.findall(_text(cell)):
            assert (ROOT / name).is_file(), name


@pytest.mark.parametrize('python', PYTHONS)
def test_running_them_adds_packages_and_changes_none(python: str) -> None:
    here = dict(python_version=python, sys_platform='linux', platform_machine='x86_64')
    added: dict[str, dict[str, str]] = {}
    for file in ('notebooks.txt', 'docs.txt', 'demo.txt'):
        lines = [x for x in _lines(file) if x.marker is None or x.marker.evaluate(here)]
        added[file] = {line.name: str(line.specifier) for line in lines}
        assert len(lines) == len(added[file])
    ours = added.pop('notebooks.txt')
    assert not set(ours) & set(_pins(python, 'linux', 'x86_64'))
    for others in added.values():
        assert all(others[name] == ours[name] for name in set(ours) & set(others))


@pytest.mark.slow
@each
def test_notebook_runs_from_its_first_cell_to_its_last(notebook: Path) -> None:
    """Without nbclient this fails with the command that installs it."""
    content = runner.execute(notebook)
    stored = json.loads(notebook.read_text(encoding='utf-8'))
    assert len(runner.pictures_of(content)) == len(runner.pictures_of(stored))
    streams = (output for cell in content.cells for output in cell.get('outputs', ()))
    assert not [output.text for output in streams if output.get('name') == 'stderr']
