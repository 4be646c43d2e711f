"""Execute the notebooks of notebooks/ and write their outputs into them; `make notebooks` runs it.

Each notebook runs in a new folder, and is written only if every cell succeeded. Its last picture
is also written to docs/images, for docs/notebooks.md. It needs requirements/notebooks.txt.
"""

import base64
import io
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from mmtimesformer.cli import run_tool
from mmtimesformer.config.command_line import ToolParser, parse
from mmtimesformer.fileio.atomic import write_atomically
from mmtimesformer.terminal import echo

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
NEEDED = 'pip install --no-deps -r requirements/notebooks.txt'
LARGEST_PICTURE = 60 * 1024  # bytes
SECONDS = 1800  # of a cell; a training in one takes about a minute on a quiet machine


def execute(notebook: Path) -> Any:
    """Return a notebook with the outputs of its cells, run in a new folder.

    Raises:
        ModuleNotFoundError: A package of requirements/notebooks.txt is missing.
        ValueError: A cell failed.
    """
    try:
        import ipykernel  # noqa: F401
        import nbformat
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError
        from traitlets.config import Config
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{error.name} is not installed; run: {NEEDED}') from error
    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        sockets = {'transport': 'ipc', 'ip': f'{folder}/kernel'}  # no port for others to read
        client = NotebookClient(
            content, timeout=SECONDS, kernel_name='python3', record_timing=False,
            coalesce_streams=True, resources={'metadata': {'path': folder}},
            startup_timeout=300, config=Config({'KernelManager': sockets}),
        )  # fmt: skip
        # No settings of the user; new folders of the notebook go with this one.
        here = {**os.environ, 'IPYTHONDIR': f'{folder}/ipython', 'TMPDIR': folder}
        try:
            client.execute(env=here)
        except CellExecutionError as error:
            raise ValueError(f'{notebook.name}: {error}') from error
    content.metadata = {
        'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
        'language_info': {'name': 'python'},
    }
    return content


def reduce_pictures(content: Any) -> None:
    """Store smaller copies of pictures that are larger than :data:`LARGEST_PICTURE`."""
    for cell in content['cells']:
        for output in cell.get('outputs', ()):
            if picture := output.get('data', {}).get('image/png'):
                small = scaled_down(base64.b64decode(picture))
                output['data']['image/png'] = base64.b64encode(small).decode()


def scaled_down(picture: bytes) -> bytes:
    """Return a PNG of at most :data:`LARGEST_PICTURE` bytes, with fewer pixels where needed."""
    image = Image.open(io.BytesIO(picture)).convert('RGB')
    width, height = image.size
    for percent in range(95, 20, -5):
        if len(picture) <= LARGEST_PICTURE:
            break
        size = width * percent // 100, height * percent // 100
        file = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(file, 'PNG', optimize=True)
        picture = file.getvalue()
    return picture


def pictures_of(content: Any) -> list[bytes]:
    """Return the PNG pictures among the outputs of a notebook."""
    outputs = (output for cell in content['cells'] for output in cell.get('outputs', ()))
    found = (output.get('data', {}).get('image/png') for output in outputs)
    return [base64.b64decode(picture) for picture in found if picture]


def picture_file(notebook: Path) -> Path:
    """Return the file of the last picture of a notebook."""
    return ROOT / 'docs/images' / f'notebook_{notebook.stem}.png'


def update(notebook: Path) -> None:
    """Execute a notebook, and write it and its last picture."""
    start = time.time()
    content = execute(notebook)
    reduce_pictures(content)
    import nbformat

    with write_atomically(notebook) as partial:
        nbformat.write(content, partial)
    with write_atomically(picture_file(notebook)) as partial:
        Path(partial).write_bytes(pictures_of(content)[-1])
    echo(f'{notebook.name}: {time.time() - start:.0f} s, {notebook.stat().st_size // 1024} KiB')


def main(argv: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = ToolParser(__doc__)
    parser.add_argument('notebooks', nargs='*', type=Path, help='which; all if not given')
    args = parse(parser, argv)

    def job() -> None:
        for notebook in args.notebooks or NOTEBOOKS:
            update(notebook)

    return run_tool(job)


if __name__ == '__main__':
    sys.exit(main())
