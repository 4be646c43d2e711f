"""Write the model tables of the README pages.

The entries come from the metafiles that model-index.yml lists. The tables are between two marks in
README.md and README_zh-CN.md (models with a published score) and configs/timesformer/README.md
(all). With --check, exit code 1 if a table is out of date.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse

ROOT = Path(__file__).resolve().parents[2]
CHINESE_PAGE = ROOT / 'README_zh-CN.md'
PAGES = (ROOT / 'README.md', CHINESE_PAGE, ROOT / 'configs' / 'timesformer' / 'README.md')
BEGIN = '<!-- zoo: written by tools/dev/zoo_table.py -->'
END = '<!-- end of zoo -->'
FULL = ('config', 'model', 'clip', 'multiply-adds', 'parameters', 'top-1', 'top-5', 'source')
SHORT = ('data set', 'config', 'clip', 'multiply-adds', 'top-1', 'top-5', 'source')
CHINESE = {
    'data set': '数据集',
    'config': '配置文件',
    'clip': '片段',
    'multiply-adds': '乘加次数',
    'source': '来源',
    "quoted from MMAction2's model zoo": '引自 MMAction2 模型库',
    'quoted from the official model zoo': '引自官方模型库',
    "quoted from PaddleVideo's model zoo": '引自 PaddleVideo 模型库',
    'quoted from the paper': '引自论文',
}


def models() -> list[dict[str, Any]]:
    """Return the entries of every metafile that model-index.yml lists."""
    listed = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    return [
        model for path in listed for model in yaml.safe_load((ROOT / path).read_text())['Models']
    ]


def cells_of(model: dict[str, Any], page: Path) -> dict[str, str]:
    """Return what the tables of a page show of a model, by heading."""
    about, (result,) = model['Metadata'], model['Results']
    link = Path(model['Config'])
    return {
        'data set': result['Dataset'],
        'config': f'[{model["Name"]}]({link if page.parent == ROOT else link.name})',
        'model': about['Architecture'].removesuffix(' attention'),
        'clip': f'{about["Frames"]} x {about["Resolution"].replace("x", " x ")}',
        'multiply-adds': about['FLOPs'],
        'parameters': about['Parameters'],
        'top-1': str(result['Metrics'].get('Top 1 Accuracy', '')),
        'top-5': str(result['Metrics'].get('Top 5 Accuracy', '')),
        'source': result['Source'].removesuffix(', not measured here'),
    }


def rows(
    cells: list[dict[str, str]], headings: tuple[str, ...], words: dict[str, str] | None = None
) -> list[str]:
    """Return the lines of a table; `words` translates cells."""
    grid = [headings, *(tuple(row[heading] for heading in headings) for row in cells)]
    shown = [[(words or {}).get(cell, cell) for cell in row] for row in grid]
    lines = [f'| {" | ".join(row)} |' for row in shown]
    lines.insert(1, '|' + '---|' * len(headings))
    return [line.replace('|  |', '| |').replace('|  |', '| |') for line in lines]


def overview(page: Path) -> str:
    """Return one table of the models that have a published score."""
    cells = [cells_of(model, page) for model in models()]
    words = CHINESE if page == CHINESE_PAGE else None
    return '\n'.join(rows([row for row in cells if row['top-1']], SHORT, words))


def table(page: Path) -> str:
    """Return all models, a table for each data set."""
    groups: dict[str, list[dict[str, str]]] = {}
    for model in models():
        row = cells_of(model, page)
        groups.setdefault(row['data set'], []).append(row)
    parts = [
        '\n'.join([f'**{dataset}**', '', *rows(cells, FULL)]) for dataset, cells in groups.items()
    ]
    return '\n\n'.join(parts)


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
        models_of_page = overview(page) if page.parent == ROOT else table(page)
        new = f'{before}{BEGIN}\n\n{models_of_page}\n\n{END}{after}'
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
