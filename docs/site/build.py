"""Build the documentation site; every warning is an error. `make docs` runs it.

    python docs/site/build.py [FOLDER]

It needs the packages of requirements/docs.txt. The site is written to build/site/html, or FOLDER.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / 'build' / 'site'
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]


def main(arguments: list[str]) -> int:
    """Build the site and return the exit code."""
    try:
        from sphinx.cmd.build import main as sphinx_build
    except ModuleNotFoundError:
        print(
            f'there is no Sphinx in {sys.prefix}; run make docs, or install requirements/docs.txt '
            '(Python 3.11 or later)',
            file=sys.stderr,
        )
        return 1
    import pages
    import public_names

    problems = list(public_names.problems())
    print(*problems, sep='\n', end='\n' if problems else '', file=sys.stderr)
    html = Path(arguments[0]) if arguments else WORK / 'html'
    shutil.rmtree(WORK / 'pages', ignore_errors=True)
    try:
        pages.write_pages(WORK / 'pages')
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    settings = ['-c', str(Path(__file__).parent), '-d', str(WORK / 'doctrees')]
    code = sphinx_build(
        ['-b', 'html', '-q', '-W', '--keep-going', *settings, str(WORK / 'pages'), str(html)]
    )
    if problems or code:
        print('the site is not complete: see above', file=sys.stderr)
        return 1
    print(f'the site is in {html}/index.html')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
