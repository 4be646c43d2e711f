"""Run a tool by its name, also without a checkout.

    python -m mmtimesformer                      # lists them
    python -m mmtimesformer predict --help
    python -m mmtimesformer data/prepare folder my_videos --out data/your_own

A wheel contains the files of ``tools/``; this runs them.
"""

import ast
import runpy
import sys
from pathlib import Path

from mmtimesformer.cli import near_name
from mmtimesformer.terminal import echo

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE / '.mim' / 'tools', PACKAGE.parent / 'tools')  # of a wheel; of a checkout


def tools() -> dict[str, Path]:
    """Return the file of each tool, by its name."""
    folder = next((one for one in FOLDERS if one.is_dir()), FOLDERS[0])
    files = sorted(folder.rglob('*.py'))
    return {file.relative_to(folder).with_suffix('').as_posix(): file for file in files}


def main(arguments: list[str]) -> int:
    """Run the tool that the first argument names, with the other arguments."""
    found = tools()
    if not arguments or arguments[0] in ('-h', '--help'):
        echo('usage: python -m mmtimesformer TOOL [its arguments]\n')
        width = max(map(len, found), default=0)
        for name, file in found.items():
            echo(f'  {name:<{width}}  {_first_sentence(file)}')
        return 0
    name, *rest = arguments
    short = {one.rpartition('/')[2]: one for one in found}  # report is analysis_tools/report
    wanted = name.removesuffix('.py')
    wanted = wanted if wanted in found else short.get(wanted, '')
    if not wanted:
        near = near_name(name, [*found, *short], 0.5)
        listing = 'python -m mmtimesformer lists all'
        echo(f'error: there is no tool {name!r}{near} ({listing})', file=sys.stderr)
        return 2
    file = found[wanted]
    sys.argv = [str(file), *rest]
    sys.path.insert(0, str(file.parent))  # as for ``python FILE``
    runpy.run_path(str(file), run_name='__main__')
    return 0


def _first_sentence(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or ''
    return text.partition('\n')[0].partition(': python ')[0].rstrip('.')


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
