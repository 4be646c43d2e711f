"""Check a page with axe-core, in the browser; without axe-core nothing is checked."""

import json
from importlib.metadata import PackageNotFoundError, files
from typing import Any

from .browser import Browser

PACKAGES = ('axe-playwright-python', 'axe-core-python')  # which carry axe.min.js
RULES = (
    "axe.run().then(found => JSON.stringify(found.violations.filter(one => ['serious', 'critical']"
    ".includes(one.impact)).map(one => one.id + ': ' + one.nodes[0].html.slice(0, 200))))"
)


def serious_issues(browser: Browser) -> list[str]:
    """Return the serious and critical violations that axe-core finds; ``[]`` without axe-core."""
    source = _axe()
    if not source:
        return []
    _evaluate(browser, source)
    return list(json.loads(_evaluate(browser, RULES)['value']))


def _evaluate(browser: Browser, expression: str) -> Any:
    options = {'expression': expression, 'awaitPromise': True, 'returnByValue': True}
    answer = browser.ask('/goog/cdp/execute', {'cmd': 'Runtime.evaluate', 'params': options})
    assert 'exceptionDetails' not in answer, answer
    return answer['result']


def _axe() -> str:
    for package in PACKAGES:
        try:
            found = [file for file in files(package) or [] if file.name == 'axe.min.js']
        except PackageNotFoundError:
            continue
        return found[0].read_text()
    return ''
