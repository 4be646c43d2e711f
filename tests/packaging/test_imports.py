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
# (MMEngine brings matplotlib, with Pillow, PyYAML and rich along.)
CORE = {'einops', 'mmengine', 'numpy', 'torch'}
VIDEO = {'av', 'cv2', 'decord', 'mmaction', 'mmcv'}
MAY_IMPORT = {
    'fileio': {'numpy', 'torch', 'yaml'},
    'models': CORE,
    'checkpoints': {'einops', 'numpy', 'safetensors', 'torch', 'yaml'},
    'compat': {'torch'},
    'config': CORE,
    'analysis': CORE | {'sklearn'},
    'engine': CORE | {'filelock', 'mmaction', 'submitit'},
    'datasets': CORE | VIDEO | {'fsspec', 'rich'},
    'inference': CORE | VIDEO | {'rich'},
    'visualization': CORE | VIDEO | {'matplotlib', 'PIL', 'sklearn'},
    'export': CORE | {'mmaction'},
    'terminal': {'rich'},  # terminal.py
    'heads': CORE | {'mmaction'},  # heads.py, which `import mmtimesformer` leaves out
    '.': CORE,  # other files beside these folders, such as registry.py
}
# Parts of our own that each part may import, beside itself and the files at the top.
MAY_USE = {
    'fileio': set(),
    'models': set(),
    'checkpoints': {'fileio'},
    'compat': set(),
    'config': {'engine'},  # for check_sharding
    'analysis': {'checkpoints', 'compat', 'engine', 'fileio'},
    'engine': {'checkpoints', 'compat', 'config', 'datasets', 'fileio', 'heads', 'models'},
    'datasets': {'fileio'},
    'inference': {
        'checkpoints',
        'compat',
        'config',
        'datasets',
        'engine',
        'fileio',
        'heads',
        'models',
    },
    'visualization': {
        'analysis',
        'checkpoints',
        'datasets',
        'engine',
        'fileio',
        'inference',
        'models',
    },
    'export': {'inference', 'models'},
    'terminal': set(),
    'heads': {'config'},
    '.': {'checkpoints', 'compat', 'engine', 'inference', 'models'},  # inference: when asked for
}

FILES = sorted(PACKAGE.rglob('*.py'))


def _part(file: Path) -> str:
    inside = file.relative_to(PACKAGE)
    part = inside.with_suffix('').parts[0]
    return part if len(inside.parts) > 1 or part in MAY_IMPORT else '.'


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = '.' * node.level + (node.module or '')
            yield from (f'{start}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('file', FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_file_imports_only_what_its_part_may(file: Path) -> None:
    part = _part(file)
    assert part in MAY_IMPORT, f'{part} is new: add it to both tables above'
    for name in _imports(file):
        assert not name.startswith('.'), f'{name}: say mmtimesformer.… instead'
        top, *rest = name.split('.')
        if top == 'mmtimesformer':
            ours = rest[0] if rest and (PACKAGE / rest[0]).is_dir() else '.'
            assert ours in {'.', part} | MAY_USE[part], f'{part} imports {name}'
        elif top not in sys.stdlib_module_names:
            assert top in MAY_IMPORT[part], f'{part} imports {name}'


def _python(code: str) -> str:
    """Run code in a fresh interpreter: other tests have imported everything in this one."""
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_no_video_library() -> None:
    """OpenCV is MMEngine's own: its Runner draws with it."""
    names = ['mmaction', 'mmcv', 'decord', 'av', 'matplotlib.pyplot']
    assert (
        _python(f'import sys, mmtimesformer; print([n for n in {names} if n in sys.modules])')
        == '[]'
    )


def test_the_model_needs_the_core_requirements_alone() -> None:
    """As after `pip install .` into an empty environment: everything optional is hidden."""
    hidden = dict.fromkeys([*sorted(VIDEO), 'safetensors', 'transformers', 'torchvision'])
    code = (
        f'import sys; sys.modules.update({hidden})\n'
        'import mmtimesformer, torch\n'
        'model = mmtimesformer.TimeSformer(num_frames=2, img_size=16, patch_size=8, embed_dims=8, '
        'num_layers=1, num_heads=2)\n'
        'print(tuple(model(torch.zeros(1, 3, 2, 16, 16)).shape))'
    )
    assert _python(code) == '(1, 8)'


def test_nothing_imports_torchvision() -> None:
    for folder in ('mmtimesformer', 'tools', 'tests', 'configs'):
        for file in (ROOT / folder).rglob('*.py'):
            assert all(name.split('.')[0] != 'torchvision' for name in _imports(file)), file
