"""What pyproject.toml cannot state: `.mim` in the wheel, the README of an index page, project URLs.

The links of the index page and the project URLs come from one setting, `repository` in the section
`[tool.mmtimesformer]` of pyproject.toml. RELEASING.md describes it.
"""

import ast
import re
import shutil
from pathlib import Path
from urllib.parse import urljoin

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools')
NOT_SHIPPED = ('__pycache__', '*.pyc', 'dev')  # tools/dev: for maintainers
ADDRESS = re.compile(r'https://[\w.-]+/[\w.-]+/[\w.-]+(?<!\.git)')

CODE = re.compile(r'^ *```.*?^ *```|`[^`\n]+`', re.DOTALL | re.MULTILINE)
TARGET = r'\]\((?P<target>[^)\s]+)\)'
IMAGE = re.compile(r'!\[(?P<text>[^][]*)' + TARGET)
LINK = re.compile(r'(?<!!)\[(?P<text>(?:!\[[^][]*\]\([^)\s]+\)|[^][])*)' + TARGET)
SCHEME = re.compile(r'[a-z]+:')


class BuildWithConfigs(build_py):
    """Build the package with `mmtimesformer/.mim/{configs,tools,model-index.yml}` inside.

    An editable install has the checkout itself and gets no `.mim`, which would be a stale copy.
    """

    def run(self):
        """Build, then copy what is shipped with the code."""
        super().run()
        if self.editable_mode:
            return
        mim = Path(self.build_lib) / 'mmtimesformer' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)  # an earlier build's configs, perhaps renamed since
        mim.mkdir(parents=True)
        for folder in SHIPPED:
            shutil.copytree(
                ROOT / folder, mim / folder, ignore=shutil.ignore_patterns(*NOT_SHIPPED)
            )
        shutil.copy(ROOT / 'model-index.yml', mim)


def read_version():
    """Return `__version__`, read from the source text."""
    text = (ROOT / 'mmtimesformer' / 'version.py').read_text(encoding='utf-8')
    return ast.literal_eval(re.search(r'^__version__ = (.+)$', text, re.MULTILINE)[1])


def read_repository():
    """Return the repository address of pyproject.toml; empty while there is none.

    Raises:
        ValueError: The line is missing, or its value is not an address.
    """
    text = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    found = re.search(r'^repository = "(.*)"$', text, re.MULTILINE)
    if not found:
        raise ValueError('pyproject.toml has no line repository = "…" in [tool.mmtimesformer]')
    if found[1] and not ADDRESS.fullmatch(found[1]):
        raise ValueError(
            f'repository = "{found[1]}" is not an address; set it in pyproject.toml, '
            '[tool.mmtimesformer], to https://HOST/OWNER/NAME without a slash or .git at its end'
        )
    return found[1]


def project_urls(repository, version):
    """Return the links of an index page; those of a release belong to its tag."""
    urls = {'Paper': 'https://arxiv.org/abs/2102.05095'}
    if repository:
        tree = f'{repository}/blob/v{version}'
        urls = {
            'Homepage': repository,
            'Documentation': f'{tree}/docs/usage.md',
            'Changelog': f'{tree}/CHANGELOG.md',
            'Issues': f'{repository}/issues',
            'Source': repository,
        } | urls
    return urls


def index_readme(text, repository, version):
    """Return a README whose links and images work on a page of another host.

    Args:
        text: Markdown with inline links, relative to the root of the repository.
        repository: its address. Without one, relative images are left out, and of relative links
            the text remains.
        version: of the release; its tag is `v` plus this.
    """

    def absolute(kind, target):
        if SCHEME.match(target):
            return target
        base = f'{repository}/{kind}/v{version}/README.md'
        return urljoin(base, target) if repository else ''

    def image(match):
        target = absolute('raw', match['target'])
        return f'![{match["text"]}]({target})' if target else ''

    def link(match):
        shown, target = IMAGE.sub(image, match['text']), absolute('blob', match['target'])
        return f'[{shown}]({target})' if target and shown else shown

    codes = CODE.findall(text)
    prose = IMAGE.sub(image, LINK.sub(link, CODE.sub('\0', text)))
    prose = re.sub(r'\n{3,}', '\n\n', prose)  # where an image was
    return re.sub('\0', lambda _: codes.pop(0), prose)


if __name__ == '__main__':
    setup(
        cmdclass={'build_py': BuildWithConfigs},
        long_description=index_readme(
            (ROOT / 'README.md').read_text(encoding='utf-8'), read_repository(), read_version()
        ),
        long_description_content_type='text/markdown',
        project_urls=project_urls(read_repository(), read_version()),
    )
