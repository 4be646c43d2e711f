"""Who may import whom: the model stands on torch, einops and MMEngine alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'mmtimesformer'

# Third-party packages that each part may import, at the top of a file or inside a function.
# (MMEngine brings matplotlib, PyYAML and rich along.)
CORE = {'einops', 'mmengine', 'numpy', 'torch'}
VIDEO = {'av', 'cv2', 'decord', 'mmaction', 'mmcv'}
MAY_IMPORT = {
    'models': CORE,
    'checkpoints': {'einops', 'numpy', 'safetensors', 'torch', 'yaml'},
    'compat': set(),
    'engine': CORE | {'mmaction'},
    'datasets': CORE | VIDEO | {'rich'},
    'inference': CORE | VIDEO,
    'visualization': CORE | VIDEO | {'matplotlib'},
    '.': CORE,  # files beside these folders, such as registry.py
}
# Parts of our own that each part may import, beside itself and the files at the top.
MAY_USE = {
    'models': set(),
    'checkpoints': set(),
    'compat': set(),
    'engine': {'checkpoints', 'compat', 'datasets', 'models'},
    'datasets': set(),
    'inference': {'checkpoints', 'datasets', 'engine', 'models'},
    'visualization': {'checkpoints', 'datasets', 'inference', 'models'},
    '.': {'checkpoints', 'compat', 'engine', 'models'},
}

FILES = sorted(PACKAGE.rglob('*.py'))


def _part(file: Path) -> str:
    inside = file.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else '.'


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{file}: relative import; say mmtimesformer.… instead'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('file', FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_file_imports_only_what_its_part_may(file: Path) -> None:
    part = _part(file)
    assert part in MAY_IMPORT, f'{part} is new: add it to both tables above'
    for name in _imports(file):
        top, *rest = name.split('.')
        if top == 'mmtimesformer':
            ours = rest[0] if rest and (PACKAGE / rest[0]).is_dir() else '.'
            assert ours in {'.', part} | MAY_USE[part], f'{part} imports {name}'
        elif top not in sys.stdlib_module_names:
            assert top in MAY_IMPORT[part], f'{part} imports {name}'


def test_importing_the_package_imports_no_video_library() -> None:
    """In a fresh interpreter: other tests have imported all of them in this one."""
    banned = ['mmaction', 'mmcv', 'decord', 'av', 'cv2', 'matplotlib.pyplot']
    code = f'import sys, mmtimesformer; print([m for m in {banned} if m in sys.modules])'
    out = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert out.strip() == '[]'


def test_nothing_imports_torchvision() -> None:
    for folder in ('mmtimesformer', 'tools', 'tests', 'configs'):
        for file in (ROOT / folder).rglob('*.py'):
            assert all(name.split('.')[0] != 'torchvision' for name in _imports(file)), file
