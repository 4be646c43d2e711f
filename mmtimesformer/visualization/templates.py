"""Render the HTML templates of this folder; text is escaped, and control characters are shown."""

import math
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mmtimesformer.terminal import safe_text


def render(template: str, **values: object) -> str:
    """Return the HTML of a template, such as ``report.html.jinja``."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=lambda value: value if hasattr(value, '__html__') else safe_text(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters['percent'] = percent
    environment.policies['json.dumps_kwargs'] = {'separators': (',', ':'), 'allow_nan': False}
    return environment


def render_part(template: str, part: str, *values: object) -> str:
    """Return the HTML of one macro of a template."""
    macro = getattr(_environment().get_template(template).module, part)
    return str(macro(*values)).strip()


def percent(fraction: float, digits: int = 1) -> str:
    """Write a fraction as percent; ``n/a`` for NaN."""
    return f'{100 * fraction:.{digits}f}\u00a0%' if math.isfinite(fraction) else 'n/a'
