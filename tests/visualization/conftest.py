"""One browser for all tests of a file."""

from collections.abc import Iterator

import pytest

from .browser import Browser, open_browser


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp('profile')) as opened:
        yield opened
