"""The marked blocks of docs/migration.md run from an installed wheel, outside the checkout."""

from pathlib import Path

import pytest

from tests.packaging.scripts import ROOT, build_wheel, load_script
from tests.packaging.snippets import Reader, Snippet, snippets_of

PAGE = (ROOT / 'docs' / 'migration.md').read_text()
USERS = snippets_of(PAGE)


def test_blocks_are_found_in_the_order_of_the_page() -> None:
    page = (
        '# T\n<!-- test: a -->\n```bash\nls\n```\n\n```bash\nrm x\n```\n'
        '<!-- test: b -->\n\n```python\nx = 1\n```\n<!-- test: a\ntest -e x\n-->\n'
    )
    assert snippets_of(page) == {
        'a': [Snippet('bash', 'ls\n', 2), Snippet('bash', 'test -e x\n', 15)],
        'b': [Snippet('python', 'x = 1\n', 10)],
    }


@pytest.mark.parametrize(
    'page',
    [
        '<!-- test: a -->\ntext\n```bash\nls\n```\n',
        '<!-- test: a -->\n```text\nls\n```\n',
        '<!-- test: a b -->\n```bash\nls\n```\n',
        '  <!-- test: a -->\n  ```bash\n  ls\n  ```\n',
    ],
)
def test_a_marker_without_a_block_is_an_error(page: str) -> None:
    with pytest.raises(ValueError, match='1 markers, but 0 blocks'):
        snippets_of(page)


def test_page_has_blocks_for_every_user() -> None:
    assert set(USERS) == {'huggingface', 'mmaction2', 'wheel'}


@pytest.mark.parametrize('user', USERS)
def test_each_user_installs_the_package_first(user: str) -> None:
    first = USERS[user][0]
    assert first.language == 'bash' and first.code.startswith('pip install ')
    assert 'mmtimesformer' in first.code


@pytest.mark.slow
@pytest.mark.parametrize('user', USERS)
def test_blocks_of_a_user_run_from_an_installed_wheel(user: str, tmp_path: Path) -> None:
    source = tmp_path / 'source'
    load_script('requirements/release.py').copy_sources(ROOT, source)
    wheel = build_wheel(source, tmp_path / 'dist')
    reader = Reader(tmp_path, wheel, ROOT / 'requirements' / 'constraints.txt')
    for snippet in USERS[user]:
        reader.run(snippet)
    where = reader.run(Snippet('python', 'import mmtimesformer; print(mmtimesformer.__file__)', 0))
    assert Path(where.strip().splitlines()[-1]).is_relative_to(reader.bin.parent)
