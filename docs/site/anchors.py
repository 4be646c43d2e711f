"""Anchors of headings: those of the repository's web page, or those that a page sets itself.

A translated page keeps the anchors of the English one, by ``<a id="…"></a>`` above a heading.
"""

import re
from functools import cache
from pathlib import Path

from myst_parser.slugs import github_slugify

DOCS = Path(__file__).resolve().parents[1]
SET = re.compile(r'^<a id="(?P<anchor>[\w-]+)"></a>\n+#+ (?P<title>.+)$', re.MULTILINE)


@cache
def anchors_set() -> dict[str, str]:
    """Return the anchors that pages set, by the title of the heading as it is shown."""
    texts = [page.read_text(encoding='utf-8') for page in DOCS.rglob('*.md')]
    found = [match for text in texts for match in SET.finditer(text)]
    return {match['title'].replace('`', '').strip(): match['anchor'] for match in found}


def anchor_of(title: str) -> str:
    """Return the anchor of a heading."""
    return anchors_set().get(title.strip()) or str(github_slugify(title))
