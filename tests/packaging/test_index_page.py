"""Links and images of the README work on an index page, from one address; badges are true."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

import mmtimesformer
from tests.packaging.scripts import ROOT, load_script
from tests.packaging.test_metadata import PROJECT, PYTHONS

ADDRESS = 'https://github.com/owner/name'
VERSION = mmtimesformer.__version__
README = (ROOT / 'README.md').read_text()
setup = load_script('setup.py')
release = load_script('requirements/release.py')


class Targets(HTMLParser):
    """The targets of links and images of a page."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[str] = []
        self.feed(MarkdownIt().enable('table').render(markdown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == 'a':
            self.links.append(found['href'])
        if tag == 'img':
            self.images.append(found['src'])


@pytest.mark.parametrize(
    ('markdown', 'expected', 'without_an_address'),
    [
        ('[a](docs/a.md)', f'[a]({ADDRESS}/blob/v1.2/docs/a.md)', 'a'),
        ('[a](docs/a.md#b)', f'[a]({ADDRESS}/blob/v1.2/docs/a.md#b)', 'a'),
        ('[`a`](b.py), `c`', f'[`a`]({ADDRESS}/blob/v1.2/b.py), `c`', '`a`, `c`'),
        ('[a](#b)', f'[a]({ADDRESS}/blob/v1.2/README.md#b)', 'a'),
        ('![A b](i/x.png)', f'![A b]({ADDRESS}/raw/v1.2/i/x.png)', ''),
        ('[s](../../security/advisories/new)', f'[s]({ADDRESS}/security/advisories/new)', 's'),
        ('[![CI](../../x.svg)](../../x)', f'[![CI]({ADDRESS}/x.svg)]({ADDRESS}/x)', ''),
        ('[![P](https://h)](a)', f'[![P](https://h)]({ADDRESS}/blob/v1.2/a)', '![P](https://h)'),
        ('[p](https://h) `[q](r)`', '[p](https://h) `[q](r)`', '[p](https://h) `[q](r)`'),
        ('```\n[q](q.md)\n```\n', '```\n[q](q.md)\n```\n', '```\n[q](q.md)\n```\n'),
        ('a\n\n![x](x.png)\n\nb\n', f'a\n\n![x]({ADDRESS}/raw/v1.2/x.png)\n\nb\n', 'a\n\nb\n'),
    ],
)  # fmt: skip
def test_relative_targets_become_absolute_or_text(
    markdown: str, expected: str, without_an_address: str
) -> None:
    assert setup.index_readme(markdown, ADDRESS, '1.2') == expected
    assert setup.index_readme(markdown, '', '1.2') == without_an_address


def test_page_has_every_link_and_image_of_the_readme_at_the_tag() -> None:
    ours, page = Targets(README), Targets(setup.index_readme(README, ADDRESS, VERSION))
    assert (len(page.links), len(page.images)) == (len(ours.links), len(ours.images))
    assert all(target.startswith('https://') for target in page.links + page.images)
    for relative, absolute in zip(ours.images, page.images, strict=True):
        if ':' not in relative and not relative.startswith('../../'):
            assert absolute == f'{ADDRESS}/raw/v{VERSION}/{relative}'
            assert (ROOT / relative).is_file()


def test_readme_is_short_and_its_moving_picture_is_small() -> None:
    assert len(README.splitlines()) <= 200
    pictures = [ROOT / image for image in Targets(README).images if image.endswith('.gif')]
    assert pictures
    assert all(picture.stat().st_size < 1.5e6 for picture in pictures)


def test_page_without_an_address_has_no_relative_link_and_keeps_the_text() -> None:
    text = setup.index_readme(README, '', VERSION)
    page = Targets(text)
    assert all(target.startswith('https://') for target in page.links + page.images)
    assert len(text.split()) > 0.9 * len(README.split())


def test_script_of_the_release_finds_every_kind_of_relative_target() -> None:
    text = '[a](b.md) ![c](d.png) <img src="e.png"> [f](https://g) ```\n'
    assert release.relative_links(text + '\n[h]: i.md\n') == ['b.md', 'd.png', 'e.png', 'i.md']
    assert len(release.relative_links(README)) > 60


def test_project_urls_come_from_the_address_alone() -> None:
    assert set(setup.project_urls('', VERSION)) == {'Paper'}
    urls = setup.project_urls(ADDRESS, VERSION)
    assert set(urls) == {'Homepage', 'Documentation', 'Changelog', 'Issues', 'Source', 'Paper'}
    assert all(url.startswith(ADDRESS) for name, url in urls.items() if name != 'Paper')
    for url in urls.values():
        if '/blob/' in url:
            assert (ROOT / url.partition(f'/blob/v{VERSION}/')[2]).is_file()


@pytest.mark.parametrize(
    'value', ['github.com/owner/name', f'{ADDRESS}/', f'{ADDRESS}.git', 'https://github.com/owner']
)
def test_an_address_of_another_form_is_refused(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, 'ROOT', tmp_path)
    (tmp_path / 'pyproject.toml').write_text(f'repository = "{value}"\n')
    with pytest.raises(ValueError, match='is not an address; set it in pyproject.toml'):
        setup.read_repository()
    (tmp_path / 'pyproject.toml').write_text(f'repository = "{ADDRESS}"\n')
    assert setup.read_repository() == ADDRESS
    (tmp_path / 'pyproject.toml').write_text('')
    with pytest.raises(ValueError, match='has no line repository'):
        setup.read_repository()


def test_no_other_file_holds_the_address() -> None:
    if not (ROOT / '.git').exists():
        pytest.skip('not a clone')
    command = [
        'git',
        '-C',
        str(ROOT),
        'grep',
        '-lIE',
        r'https://[a-z.-]+/[A-Za-z0-9_-]+/mmtimesformer\b',
    ]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    assert set(found) <= {'pyproject.toml'}
    assert setup.read_repository() == release.repository_of(ROOT)


def test_badges_state_what_the_metadata_state() -> None:
    badges = re.findall(r'\[!\[([^]]+)\]\(([^)]+)\)\]\(([^)]+)\)', README)
    first, last, licence = PYTHONS[0], PYTHONS[-1], PROJECT['license']
    shield = 'https://img.shields.io/badge'
    ci = '../../actions/workflows/ci.yml'
    assert badges == [
        ('CI', f'{ci}/badge.svg', ci),
        (f'Python {first} to {last}', f'{shield}/python-{first}_to_{last}-blue', 'pyproject.toml'),
        (
            f'Licence: {licence}',
            f'{shield}/licence-{licence.replace("-", "--")}-blue',
            'LICENSE',
        ),
    ]
    assert (ROOT / '.github/workflows/ci.yml').is_file()


def test_licence_is_an_spdx_expression_and_no_classifier_repeats_it() -> None:
    assert PROJECT['license'] == 'Apache-2.0'
    assert PROJECT['license-files'] == ['LICENSE']
    assert not [line for line in PROJECT['classifiers'] if line.startswith('License')]
