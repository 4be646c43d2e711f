"""The command ``mmtimesformer``, and ``python -m mmtimesformer``: run a tool by its name.

    mmtimesformer --help                          # all tools by job
    mmtimesformer predict --help
    mmtimesformer prepare folder my_videos --out data/your_own

A wheel contains the files of ``tools/``; this runs them.
"""

import runpy
import sys
from typing import TextIO

from mmtimesformer.console.tools import COMPLETION, file_of, find_tool, help_text
from mmtimesformer.version import __version__

DONE, MISTAKE = 0, 2  # exit codes, see mmtimesformer.cli


def main(arguments: list[str]) -> int:
    """Run the tool that the first argument names, with the other arguments."""
    if not arguments or arguments[0] in ('-h', '--help', 'help'):
        for line in help_text().splitlines():
            _show(line)
        return DONE
    name, *rest = arguments
    if name == '--version':
        _show(f'mmtimesformer {__version__}')
        return DONE
    if name == COMPLETION:
        from mmtimesformer.console.completion import print_script

        return print_script(rest)
    try:
        tool = find_tool(name)
    except ValueError as error:
        _show(f'error: {error}', sys.stderr)
        return MISTAKE
    file = file_of(tool)
    sys.argv = [str(file), *rest]
    sys.path.insert(0, str(file.parent))  # as for ``python FILE``
    runpy.run_path(
        str(file), init_globals={'COMMAND': f'mmtimesformer {tool.name}'}, run_name='__main__'
    )
    return DONE


def _show(text: str, file: TextIO | None = None) -> None:
    from mmtimesformer.terminal import echo  # it needs rich, which the doctor may find missing

    echo(text, file=file)


def command() -> int:
    """Run the console command, and return its exit code."""
    return main(sys.argv[1:])


if __name__ == '__main__':
    sys.exit(command())
