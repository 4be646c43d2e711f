"""Find layout faults of an open page: horizontal overflow, clipped text, text outside of its box.

The page is measured in the browser, not compared with stored pictures: fonts differ by machine.
"""

from collections.abc import Iterator
from pathlib import Path

from .browser import Browser

WIDTHS = (390, 1280)  # a phone and a laptop, in CSS pixels
# What scrolls can be reached, and what `clip-path: inset(50%)` hides is for screen readers alone:
# neither is a fault.
FAULTS = r"""
const faults = new Set();
const report = (what, text) => faults.add(what + ': ' + text.trim().slice(0, 60));
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth)
  report('page scrolls sideways', page.scrollWidth + ' of ' + page.clientWidth + ' pixels');
const clips = value => value === 'hidden' || value === 'clip';
const scrolls = value => value === 'auto' || value === 'scroll';
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode;
  if (!node.data.trim() || node.parentElement.closest('script, style, noscript, option, .skip')) continue;
  if (!node.parentElement.checkVisibility({ visibilityProperty: true })) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  const { left, right, top, bottom } = range.getBoundingClientRect();
  const around = [];
  for (let e = node.parentElement; e && e !== page; e = e.parentElement) around.push([e, getComputedStyle(e)]);
  if (around.some(([, style]) => style.clipPath === 'inset(50%)')) continue;
  let boxed = false, sideways = false, upright = false;
  for (const [e, style] of around) {
    if (style.display === 'inline' || style.display === 'contents') continue;
    const box = e.getBoundingClientRect();
    const out = [box.left - left, right - box.right].some(gap => gap > 1);
    const above = [box.top - top, bottom - box.bottom].some(gap => gap > 1);
    if (!sideways && out && clips(style.overflowX)) report('clipped at the side', node.data);
    if (!upright && above && clips(style.overflowY)) report('clipped in height', node.data);
    if (!boxed && out && style.overflowX === 'visible') report('outside of ' + e.localName, node.data);
    boxed = true;
    sideways ||= scrolls(style.overflowX);
    upright ||= scrolls(style.overflowY);
  }
  if (!sideways && (left < -1 || right > page.clientWidth + 1)) report('outside of the page', node.data);
}
return [...faults];
"""


def layout_faults(browser: Browser) -> list[str]:
    """Return the faults of the open page at the present width, each as ``what: text``."""
    return list(browser.run(FAULTS))


def at_every_size(
    browser: Browser, page: Path | str, ready: str = 'document.readyState === "complete"'
) -> Iterator[str]:
    """Open a page at both widths, in light and dark, and give a name of the form that is open.

    Args:
        browser: Has its own size and colours again at the end.
        page: A file, or an address such as ``http://127.0.0.1:7860``.
        ready: The page is open when this JavaScript expression is true.
    """
    try:
        for scheme in ('light', 'dark'):
            media = [{'name': 'prefers-color-scheme', 'value': scheme}]
            browser.devtools('Emulation.setEmulatedMedia', features=media)
            for width in WIDTHS:
                size = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False}
                browser.devtools('Emulation.setDeviceMetricsOverride', **size)
                browser.open(page, ready)
                yield f'{width} pixels, {scheme}'
    finally:
        browser.devtools('Emulation.clearDeviceMetricsOverride')
        browser.devtools('Emulation.setEmulatedMedia', features=[])
