"""Check a page with axe-core, in the browser."""

import json
from typing import Any

from tests.page_requirements import axe_source

from .browser import Browser

RULES = (
    "axe.run().then(found => JSON.stringify(found.violations.filter(one => ['serious', 'critical']"
    ".includes(one.impact)).map(one => one.id + ': ' + one.nodes[0].html.slice(0, 200))))"
)


def serious_issues(browser: Browser) -> list[str]:
    """Return the serious and critical violations that axe-core finds in the open page."""
    _evaluate(browser, axe_source())
    return list(json.loads(_evaluate(browser, RULES)['value']))


def _evaluate(browser: Browser, expression: str) -> Any:
    answer = browser.devtools(
        'Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True
    )
    assert 'exceptionDetails' not in answer, answer
    return answer['result']
