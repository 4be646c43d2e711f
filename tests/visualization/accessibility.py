"""Check a page with axe-core, in the browser (``pip install -r requirements/browser.txt``)."""

import json
from importlib.metadata import PackageNotFoundError, files
from typing import Any

import pytest

from .browser import Browser

PACKAGES = ('axe-playwright-python', 'axe-core-python')  # which have axe.min.js
RULES = (
    "axe.run().then(found => JSON.stringify(found.violations.filter(one => ['serious', 'critical']"
    ".includes(one.impact)).map(one => one.id + ': ' + one.nodes[0].html.slice(0, 200))))"
)


def _axe() -> str:
    for package in PACKAGES:
        try:
            found = [file for file in files(package) or [] if file.name == 'axe.min.js']
        except PackageNotFoundError:
            continue
        return found[0].read_text()
    return ''


SOURCE = _axe()
with_axe = pytest.mark.skipif(
    not SOURCE, reason='needs axe-core (pip install -r requirements/browser.txt)'
)


def serious_issues(browser: Browser) -> list[str]:
    """Return the serious and critical violations that axe-core finds in the open page."""
    _evaluate(browser, SOURCE)
    return list(json.loads(_evaluate(browser, RULES)['value']))


def _evaluate(browser: Browser, expression: str) -> Any:
    options = {'expression': expression, 'awaitPromise': True, 'returnByValue': True}
    answer = browser.ask('/goog/cdp/execute', {'cmd': 'Runtime.evaluate', 'params': options})
    assert 'exceptionDetails' not in answer, answer
    return answer['result']
