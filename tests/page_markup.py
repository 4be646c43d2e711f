"""Read a page as a browser does: its elements, and what of it is shown without a script."""

import re
from collections import Counter
from html.parser import HTMLParser


def elements_of(page: str) -> Counter[str]:
    """Count the elements of a page by tag and names of attributes, as in ``a data-label href``."""
    found: Counter[str] = Counter()

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found[' '.join([tag, *sorted(name for name, _ in attrs)])] += 1

    Reader().feed(page)
    return found


def shown_part(page: str) -> str:
    """Return a page without its styles, scripts and data."""
    return re.sub(r'<(style|script)\b.*?</\1>', '', page, flags=re.DOTALL)
