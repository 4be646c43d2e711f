"""The documentation site has every page and every public name, and builds without a warning."""

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

from tests.packaging.scripts import run_command
from tests.packaging.test_metadata import _lines, _pins

ROOT = Path(__file__).parents[2]
DOCS = ROOT / 'docs'
WORKFLOW = ROOT / '.github/workflows/docs.yml'
LINK = re.compile(r'^ *- \[[^]]+\]\(([^)#\s]+\.md)\)', re.MULTILINE)
# What a reader wants, in this order
ORDER = [
    'Start in five minutes', 'Which model do I want', 'Train on my videos', 'Use a model',
    'Look inside (attention)', 'Data sets', 'Checkpoints', 'Protocols and reproducing numbers',
    'Speed and memory', 'Many machines', 'What survives what', 'Migrate', 'API reference',
    'Contribute',
]  # fmt: skip


def _listed() -> list[Path]:
    """Return the pages that the index lists, of nested indexes too."""
    return [
        page
        for index in DOCS.rglob('index.md')
        for page in ((index.parent / link).resolve() for link in LINK.findall(index.read_text()))
        if index.parent == DOCS or page.is_relative_to(index.parent.resolve())
    ]


def test_every_page_is_in_the_navigation_once() -> None:
    listed = _listed()
    pages = {page.resolve() for page in DOCS.rglob('*.md')} - {DOCS.resolve() / 'index.md'}
    assert not pages - set(listed), 'add these pages to the list of docs/index.md'
    assert len(listed) == len(set(listed))


def test_navigation_has_the_order_of_a_reader() -> None:
    titles = re.findall(r'^- \[([^]]+)\]', (DOCS / 'index.md').read_text(), re.MULTILINE)
    assert [title for title in titles if title in ORDER] == ORDER


@pytest.mark.parametrize('python', ['3.11', '3.12', '3.13'])
def test_the_site_adds_packages_and_changes_none(python: str) -> None:
    added = [line.name for line in _lines('docs.txt')]
    assert len(added) == len(set(added))
    assert not set(added) & set(_pins(python, 'linux', 'x86_64'))


def test_workflow_builds_each_push_and_publishes_main_alone() -> None:
    text = WORKFLOW.read_text()
    workflow = yaml.load(text, Loader=yaml.BaseLoader)
    assert {'push', 'pull_request'} <= set(workflow['on'])
    jobs = workflow['jobs']
    assert workflow['permissions'] == {}
    assert jobs['build']['permissions'] == {'contents': 'read'}
    assert jobs['publish']['permissions'] == {'pages': 'write', 'id-token': 'write'}
    assert "github.ref == 'refs/heads/main'" in jobs['publish']['if']
    assert 'if' not in jobs['build']
    for line in re.findall(r'uses: (.+)', text):
        assert re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+', line), line


@pytest.fixture(scope='module')
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the packages of this one, which ``make docs`` may add to."""
    folder = tmp_path_factory.mktemp('site') / 'venv'
    venv.create(folder, with_pip=True)
    run = folder / 'bin' / 'python'
    own = run_command(run, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip()
    (Path(own) / 'packages.pth').write_text(sysconfig.get_path('purelib') + '\n')
    return run


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which('make'), reason='there is no make here')
@pytest.mark.skipif(sys.version_info < (3, 11), reason='Sphinx needs Python 3.11')
def test_make_docs_builds_the_site_without_a_warning(python: Path, tmp_path: Path) -> None:
    """In a copy, with `env` taken as done, because it makes an environment of its own."""
    checkout = _copy(tmp_path / 'checkout')
    settings = f'VENV={python.parents[1]}', f'ARGS={tmp_path / "html"}'
    out = run_command('make', '-o', 'env', 'docs', *settings, cwd=checkout)
    assert 'the site is in' in out
    html = (tmp_path / 'html/index.html').read_text()
    assert [html.find(title) for title in ORDER] == sorted(html.find(title) for title in ORDER)
    assert 'VideoClassifier' in (tmp_path / 'html/api/inference.html').read_text()
    for page in (tmp_path / 'html').rglob('*.html'):
        assert not re.search(r'(?:src|<link[^>]+href)="https?://', page.read_text()), page

    fusion = checkout / 'mmtimesformer/heads/fusion.py'
    fusion.write_text(fusion.read_text().replace('#: ', '# '))
    start = checkout / 'docs/start.md'
    start.write_text('# Start\n\n[a](no_page.md)\n')
    code, error = _build(python, checkout, tmp_path)
    assert code == 1
    assert 'no file docs/no_page.md' in error
    assert 'mmtimesformer.heads.FUSIONS is public and has no comment' in error
    start.write_text('# Start\n\n[a](usage.md#no-heading)\n')
    lost = checkout / 'docs/lost.md'
    lost.write_text('# Lost\n')
    code, error = _build(python, checkout, tmp_path)
    assert code == 1
    assert 'lost.md is not in the navigation' in error
    lost.unlink()
    code, error = _build(python, checkout, tmp_path)
    assert code == 1
    assert 'no-heading' in error


def _copy(checkout: Path) -> Path:
    skip = shutil.ignore_patterns('__pycache__')
    for name in (
        'benchmarks',
        'configs',
        'docs',
        'mmtimesformer',
        'notebooks',
        'requirements',
        'tests',
        'tools',
    ):
        shutil.copytree(ROOT / name, checkout / name, ignore=skip)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, checkout)
    return checkout


def _build(python: Path, checkout: Path, folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [str(python), 'docs/site/build.py', str(folder / 'html')],
        cwd=checkout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr
