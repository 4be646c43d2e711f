"""Write the model tables of the README pages.

The entries come from the metafiles that model-index.yml lists. The tables are between two marks in
README.md and configs/timesformer/README.md. With --check, exit code 1 if a table is out of date.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / 'README.md', ROOT / 'configs' / 'timesformer' / 'README.md')
BEGIN = '<!-- zoo: written by tools/dev/zoo_table.py -->'
END = '<!-- end of zoo -->'


def models() -> list[dict[str, Any]]:
    """Return the entries of every metafile that model-index.yml lists."""
    listed = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    return [
        model for path in listed for model in yaml.safe_load((ROOT / path).read_text())['Models']
    ]


def table(page: Path) -> str:
    """Return the table of a page, one section for each data set, links relative to the page."""
    lines: list[str] = []
    dataset = None
    for model in models():
        about, (result,) = model['Metadata'], model['Results']
        if result['Dataset'] != dataset:
            dataset = result['Dataset']
            lines += [
                '',
                f'**{dataset}**',
                '',
                '| config | model | clip | multiply-adds | parameters | top-1 | top-5 | source |',
                '|---|---|---|---|---|---|---|---|',
            ]
        link = Path(model['Config'])
        shown = link if page.parent == ROOT else link.name
        scores = [result['Metrics'].get(f'Top {k} Accuracy', '') for k in (1, 5)]
        source = result['Source'].removesuffix(', not measured here')
        cells = [
            f'[{model["Name"]}]({shown})',
            about['Architecture'].removesuffix(' attention'),
            f'{about["Frames"]} x {about["Resolution"].replace("x", " x ")}',
            about['FLOPs'],
            about['Parameters'],
            *map(str, scores),
            source,
        ]
        lines.append(f'| {" | ".join(cells)} |'.replace('|  |', '| |').replace('|  |', '| |'))
    return '\n'.join(lines).strip()


def write(check: bool) -> None:
    """Write the tables into the pages.

    Raises:
        ValueError: With ``check``, a table is out of date; or a page has no marks.
    """
    for page in PAGES:
        text = page.read_text()
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ValueError(f'{page} has no marks; put {BEGIN} and {END} where the table goes')
        new = f'{before}{BEGIN}\n\n{table(page)}\n\n{END}{after}'
        if check and new != text:
            raise ValueError(
                f'the table of {page} is not that of the metafiles; '
                'run: python tools/dev/zoo_table.py'
            )
        page.write_text(new)


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = ToolParser(__doc__)
    parser.add_argument('--check', action='store_true', help='compare only; write nothing')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    args = parse(parser, argv)
    return run_tool(lambda: write(args.check), args.debug)


if __name__ == '__main__':
    sys.exit(main())
