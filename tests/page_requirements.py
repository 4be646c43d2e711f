"""What tests of pages need, and what happens where it is missing; ``make browser`` installs it.

A test names its needs by a mark: ``in_a_browser``, ``with_gradio``, ``with_axe``. Where one is
missing, the test is skipped, and with the variable ``CI=true`` it fails (tests/conftest.py).
"""

import importlib.util
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files

import pytest

from requirements.make_browser import find_browser, has_driver

in_a_browser = pytest.mark.needs('Chromium', 'chromedriver')
with_gradio = pytest.mark.needs('Gradio')
with_axe = pytest.mark.needs('axe-core')


def axe_source() -> str:
    """Return the script of axe-core, or nothing where it is not installed."""
    try:
        found = [file for file in files('axe-core-python') or [] if file.name == 'axe.min.js']
    except PackageNotFoundError:
        return ''
    return found[0].read_text()


FOUND: dict[str, Callable[[], object]] = {
    'Chromium': find_browser,
    'chromedriver': has_driver,
    'Gradio': lambda: importlib.util.find_spec('gradio'),
    'axe-core': axe_source,
}


def require(*names: str) -> None:
    """Skip the running test if a requirement is missing; fail it in CI."""
    missing = [name for name in names if not FOUND[name]()]
    if not missing:
        return
    reason = f'{" and ".join(missing)} missing: run `make browser`'
    if in_ci():
        pytest.fail(f'{reason} (CI=true, so this is no skip)', pytrace=False)
    pytest.skip(reason)


def in_ci() -> bool:
    """Return whether this runs in CI, where no test of a page may be skipped."""
    return os.environ.get('CI', '').lower() in ('true', '1')
