"""Copy the Markdown pages for Sphinx: links to files outside the site, navigation, API pages.

``docs/*.md`` are the only source; the repository's web page shows the same files. The copies
differ in four ways:

- Links to files that are not in the site, such as ``../mmtimesformer/models/blocks.py``, lead to
  the repository's address in ``pyproject.toml``. While there is none, only their text remains.
- A link whose text is the name of a file, such as ``[usage.md](usage.md)``, shows the title.
- Pages named ``index.md`` have a list of links. It becomes the navigation: an item is an entry, and
  the items below it are its children. Links out of the folder of the index are no entries.
- The API reference is written from ``api.toml``.
"""

import importlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import public_names

import setup as project_setup

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
# Pages of the repository that are outside docs/ → their place in the site.
OUTSIDE = {
    'CONTRIBUTING.md': 'contributing.md',
    'CHANGELOG.md': 'changelog.md',
    'RELEASING.md': 'releasing.md',
    'configs/timesformer/README.md': 'model_zoo.md',
}
NAVIGATION = 'index.md'
API = 'api.md'  # has the generated pages below it
ITEM = re.compile(r'^(?P<indent> *)- \[(?P<title>[^]]+)\]\((?P<page>[^)#\s]+\.md)\)', re.MULTILINE)


def pages_of_site() -> dict[Path, Path]:
    """Return the place in the site of every page, both relative to their roots."""
    own = {path.relative_to(ROOT): path.relative_to(DOCS) for path in DOCS.rglob('*.md')}
    return own | {Path(source): Path(page) for source, page in OUTSIDE.items()}


def write_pages(folder: Path) -> None:
    """Write all pages and images into an empty folder.

    Raises:
        ValueError: A page is not in the navigation, or an entry of it is not a page.
    """
    pages = pages_of_site()
    api = {f'api/{page.name}.md' for page in public_names.PAGES}
    children = dict(navigation(pages))
    _check_navigation(children, {page.as_posix() for page in pages.values()} | api)
    for source, page in pages.items():
        text = with_site_links((ROOT / source).read_text(encoding='utf-8'), source, pages)
        _write(folder / page, text + toctree(page, children.get(page.as_posix(), [])))
    for page in public_names.PAGES:
        _write(folder / 'api' / f'{page.name}.md', api_page(page))
    shutil.copytree(DOCS / 'images', folder / 'images')


def navigation(pages: dict[Path, Path]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Give each page that has children, with their titles and pages."""
    for source, page in pages.items():
        if page.name != NAVIGATION:
            continue
        children: dict[str, list[tuple[str, str]]] = {}
        parents = [(-1, page.as_posix())]
        for item in ITEM.finditer((ROOT / source).read_text(encoding='utf-8')):
            depth = len(item['indent'])
            target = _place(source.parent, item['page'], pages)
            if not Path(target).is_relative_to(page.parent):
                continue  # an index of another language links to pages that it does not have
            while parents[-1][0] >= depth:
                parents.pop()
            children.setdefault(parents[-1][1], []).append((item['title'], target))
            parents.append((depth, target))
        yield from children.items()
    yield API, [(page.title, f'api/{page.name}.md') for page in public_names.PAGES]


def with_site_links(text: str, source: Path, pages: dict[Path, Path]) -> str:
    """Return a page whose relative links work in the site.

    Args:
        text: Markdown of the page.
        source: The page, relative to the root of the repository.
        pages: The result of :func:`pages_of_site`.
    """
    repository = project_setup.read_repository()

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match['target'].partition('#')
        if project_setup.SCHEME.match(target) or not target:
            return match[0]
        path = Path(os.path.normpath(source.parent / target))
        anchor = f'#{anchor}' if anchor else ''
        if path in pages:
            relative = os.path.relpath(pages[path], pages[source].parent)
            # MyST writes the title of the page or section where there is no text
            text = '' if match['text'].endswith('.md') else match['text']
            return f'[{text}]({Path(relative).as_posix()}{anchor})'
        if not (ROOT / path).exists():
            raise ValueError(f'{source}: there is no file {path}, to which a link leads')
        kind = 'tree' if (ROOT / path).is_dir() else 'blob'
        address = f'{repository}/{kind}/main/{path.as_posix()}{anchor}'
        return f'[{match["text"]}]({address})' if repository else match['text']

    codes = project_setup.CODE.findall(text)
    prose = project_setup.LINK.sub(link, project_setup.CODE.sub('\0', text))
    return re.sub('\0', lambda _: codes.pop(0), prose)


def toctree(page: Path, children: list[tuple[str, str]]) -> str:
    """Return the navigation below a page as a hidden toctree."""
    if not children:
        return ''
    entries = [
        f'{title} <{Path(os.path.relpath(child, page.parent)).with_suffix("").as_posix()}>'
        for title, child in children
    ]
    shown = [] if page.as_posix() == API else [':hidden:']
    return '\n'.join(['\n', '```{toctree}', *shown, '', *entries, '```', ''])


def api_page(page: public_names.ApiPage) -> str:
    """Return a page of the API reference."""
    lines = [f'# {page.title}', '', page.about, '', '```{eval-rst}']
    module = ''
    for home, name in public_names.names_of(page):
        lines += [f'.. currentmodule:: {home}', ''] if home != module else []
        lines += ['.. rubric:: ``' + home + '``', ''] if home != module else []
        module = home
        lines += [*_directive(home, name), '']
    return '\n'.join([*lines, '```', ''])


def _directive(module: str, name: str) -> Iterator[str]:
    value = getattr(importlib.import_module(module), name)
    if public_names.is_constant(value):
        yield f'.. autodata:: {public_names.home_of(module, name)}.{name}'
        yield '   :no-value:'
    elif isinstance(value, type):
        yield f'.. autoclass:: {module}.{name}'
        yield '   :members:'
        if value.__bases__ != (object,):
            yield '   :show-inheritance:'
    else:
        yield f'.. autofunction:: {module}.{name}'


def _place(folder: Path, target: str, pages: dict[Path, Path]) -> str:
    path = Path(os.path.normpath(folder / target))
    return pages[path].as_posix() if path in pages else path.relative_to('docs').as_posix()


def _check_navigation(children: dict[str, list[tuple[str, str]]], pages: set[str]) -> None:
    listed = [page for items in children.values() for _, page in items]
    for page in sorted(set(listed) - pages):
        raise ValueError(f'{page} is in the navigation of an index.md, but is not a page')
    for page in sorted(pages - {*listed, NAVIGATION}):
        raise ValueError(f'{page} is not in the navigation; add it to the list of docs/index.md')
    for page in sorted({page for page in listed if listed.count(page) > 1}):
        raise ValueError(f'{page} is twice in the navigation; remove one item of docs/index.md')


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
