"""Find the blocks of a page that are marked for a test, and run them as a reader would.

    <!-- test: wheel -->        marks the block of bash or Python below it
    <!-- test: wheel
    ls work_dirs/*/*.pth
    -->                         holds lines of bash that the page does not show: a setup or a check

The blocks of one user run in the order of the page, in one folder outside the checkout, with an
environment that is empty at first: the first block of each user installs the package.
"""

import os
import re
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

MARKER = '<!-- test:'
BLOCK = re.compile(
    rf'^{MARKER} (?P<user>\w+)'
    r'(?: -->\n+```(?P<language>bash|python)\n(?P<shown>.*?)^```$|\n(?P<hidden>.*?)^-->$)',
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Snippet:
    """A block of a page: its language, its code, and the line of the page where it begins."""

    language: str
    code: str
    line: int


def snippets_of(page: str) -> dict[str, list[Snippet]]:
    """Return the marked blocks of a page by user, in the order of the page.

    Raises:
        ValueError: A marker is followed by neither a block of bash or Python nor hidden lines.
    """
    found: dict[str, list[Snippet]] = {}
    for match in BLOCK.finditer(page):
        code = match['shown'] if match['hidden'] is None else match['hidden']
        line = page.count('\n', 0, match.start()) + 1
        found.setdefault(match['user'], []).append(Snippet(match['language'] or 'bash', code, line))
    if page.count(MARKER) != sum(map(len, found.values())):
        raise ValueError(
            f'{page.count(MARKER)} markers, but {sum(map(len, found.values()))} blocks; write '
            f'"{MARKER} USER -->" above a block of bash or python'
        )
    return found


class Reader:
    """A user who has a new environment and an empty folder, and types what the page shows.

    Args:
        folder: for the environment and the files.
        wheel: what ``pip install mmtimesformer`` installs.
        pins: a file of constraints for all other packages.
    """

    def __init__(self, folder: Path, wheel: Path, pins: Path) -> None:
        self.work = folder / 'work'
        self.work.mkdir()
        self.bin = folder / 'venv' / 'bin'
        venv.create(self.bin.parent, with_pip=True)
        constraints = folder / 'constraints.txt'
        version = wheel.name.split('-')[1]
        constraints.write_text(f'{pins.read_text()}\nmmtimesformer=={version}\n')
        ours = ('PYTHON', 'PYTEST_', 'VIRTUAL_ENV')
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        self.environment = {
            **kept,
            'PATH': f'{self.bin}{os.pathsep}{os.environ["PATH"]}',
            'VIRTUAL_ENV': str(self.bin.parent),
            'PIP_CONSTRAINT': str(constraints),
            'PIP_FIND_LINKS': f'{kept.get("PIP_FIND_LINKS", "")} {wheel.parent}'.strip(),
            'HF_HOME': str(folder / 'huggingface'),
            'TORCH_HOME': str(folder / 'torch'),
            'OMP_NUM_THREADS': '1',
        }

    def run(self, snippet: Snippet) -> str:
        """Run a block, which must succeed; return what it printed."""
        file = self.work.parent / f'line_{snippet.line}.{snippet.language}'
        file.write_text(snippet.code)
        shell = ['bash', '-euo', 'pipefail']
        command = shell if snippet.language == 'bash' else [str(self.bin / 'python')]
        done = subprocess.run(
            [*command, str(file)], cwd=self.work, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (
            f'line {snippet.line} of the page:\n{snippet.code}\n{done.stdout[-8000:]}'
        )
        return done.stdout
