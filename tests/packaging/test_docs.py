"""The package map lists every module, and links, anchors and file names in the pages exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'mmtimesformer'
PAGES = [
    *sorted(ROOT.glob('*.md')),
    ROOT / '.github/PULL_REQUEST_TEMPLATE.md',
    *sorted((ROOT / 'docs').rglob('*.md')),
    ROOT / 'configs/timesformer/README.md',
]
# A file named in code is relative to the root, or to the package (`engine/runner.py`).
FOLDERS = [path.name for path in [*ROOT.iterdir(), *PACKAGE.iterdir()] if path.is_dir()]
FILE = re.compile(rf'`((?:{"|".join(map(re.escape, FOLDERS))})/[\w./-]*\.(?:py|sh|md|txt|jinja))`')
# Pages of the repository on its host, relative to a file at the root: they work at any address.
ON_THE_HOST = re.compile(r'\.\./\.\./(actions|security)/[\w./-]+')
MADE = ('data/', 'work_dirs/', '.venv')  # by commands of the pages


def _text(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r'^ *```.*?^ *```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings, and those written out."""
    anchors = set(re.findall(r'<a (?:id|name)="([^"]+)"', page.read_text()))
    for heading in re.findall(r'^#+ +(.+)$', _text(page), re.MULTILINE):
        anchors.add(re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-'))
    return anchors


def test_package_map_lists_every_module_and_no_other() -> None:
    page = (ROOT / 'docs/architecture.md').read_text().split('## Package map')[1]
    listed = re.findall(r'^\| \*{0,2}`([^`]+)`\*{0,2} \| \S', page, re.MULTILINE)
    files = [path.relative_to(PACKAGE) for path in PACKAGE.rglob('*') if path.is_file()]
    modules = [str(file) for file in files if file.suffix in ('.py', '.jinja')]
    expected = [name for name in modules if not name.endswith('__init__.py')]
    packages = {f'{Path(name).parent}/' for name in modules} - {'./'}
    assert sorted(listed) == sorted([*expected, *packages])


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_anchors_resolve(page: Path) -> None:
    for link in re.findall(r'\]\(([^)\s]+)\)', _text(page)):
        if re.match(r'[a-z]+:', link):
            continue
        if page.parent == ROOT and ON_THE_HOST.fullmatch(link):
            continue
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    for name in FILE.findall(_text(page)):
        there = (ROOT / name).is_file() or (PACKAGE / name).is_file()
        assert there or name.startswith(MADE), name
