"""Who may import whom: the model stands on torch, einops and MMEngine alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / 'mmtimesformer'

# Third-party packages that each part may import, at the top of a file or inside a function.
# (MMEngine brings matplotlib, with Pillow, PyYAML and rich along; torch brings filelock, Jinja2.)
CORE = {'einops', 'mmengine', 'numpy', 'torch'}
VIDEO = {'av', 'cv2', 'decord', 'mmaction', 'mmcv', 'torchcodec'}
MAY_IMPORT = {
    'version': set(),
    'resize': {'einops', 'torch'},
    'registry': {'mmengine'},
    'non_finite': {'numpy', 'torch'},
    'terminal': {'rich'},
    'class_names': set(),
    'cli': {'mmaction', 'rich', 'torch'},  # mmaction and torch inside functions only
    'fileio': {'numpy', 'torch', 'yaml'},
    'compat': {'mmengine', 'torch'},
    'models': CORE,
    'checkpoints': {'einops', 'huggingface_hub', 'numpy', 'safetensors', 'torch', 'yaml'},
    'config': CORE,
    'heads': CORE | {'mmaction'},  # which `import mmtimesformer` leaves out
    'datasets': CORE | VIDEO | {'PIL', 'fsspec', 'rich'},
    'engine': CORE | {'filelock', 'submitit'},
    'analysis': CORE | {'sklearn'},
    'inference': CORE | VIDEO | {'rich'},
    'visualization': {'PIL', 'av', 'cv2', 'einops', 'jinja2', 'matplotlib', 'numpy', 'torch'},
    'probing': CORE | {'sklearn'},  # inside functions only
    'export': CORE | {'mmaction'},
    'finetuning': {'mmengine', 'torch'},
    'console': set(),
    '__init__': set(),
    '__main__': set(),
    'utils': {'mmengine'},
}
# Parts of our own that each part may import, besides itself. All may import these:
COMMON = {'class_names', 'cli', 'fileio', 'non_finite', 'registry', 'resize', 'terminal', 'version'}
GROUND = {  # the common ones themselves
    'version': set(),
    'resize': set(),
    'registry': set(),
    'non_finite': set(),
    'fileio': set(),
    'class_names': set(),
    'terminal': set(),
    'cli': {'terminal'},
}
PROBED = {'analysis', 'checkpoints', 'config', 'datasets', 'inference', 'models'}
MAY_USE = {
    'compat': set(),
    'models': set(),
    'checkpoints': set(),
    'config': {'compat'},
    'heads': {'compat', 'config'},
    'datasets': {'compat'},
    'engine': {'checkpoints', 'compat', 'config', 'datasets', 'heads', 'models'},
    'analysis': {'checkpoints', 'compat', 'config', 'datasets'},
    'inference': {'checkpoints', 'compat', 'config', 'datasets', 'engine', 'heads', 'models'},
    'visualization': {'analysis', 'checkpoints', 'config', 'datasets', 'inference', 'models'},
    'probing': {'compat', 'heads', *PROBED},
    'export': {'analysis', 'checkpoints', 'config', 'datasets', 'heads', 'inference', 'models'},
    'finetuning': {'checkpoints', 'config', 'datasets', 'engine', 'inference', 'probing'},
    # some when they can be
    '__init__': {'compat', 'config', 'console', 'engine', 'inference', 'models'},
    'console': {'config'},  # inside functions only
    '__main__': {'console'},
    'utils': set(),
}
ALLOWED = {**GROUND, **{part: others | COMMON for part, others in MAY_USE.items()}}
# Of a part, these modules alone.
ONLY = {
    ('inference', 'engine'): 'mmtimesformer.engine.optim.amp',
    ('config', 'compat'): 'mmtimesformer.compat.after_import',
}
# The one arrow up: TimeSformer.from_pretrained imports inside the method.
EXCEPTIONS = {('models/timesformer.py', 'checkpoints')}
# Parts that import the package itself: its version, or its registration.
USE_THE_PACKAGE = {'config', 'export', 'inference', 'engine', 'console', '__main__'}
# Files that need less than their part, so that any part may stand on them.
STANDARD_LIBRARY_ALONE = (
    'compat/after_import.py',
    'compat/mmaction2_1_2.py',
    'compat/upstream.py',
    'console/tools.py',
    'fileio/atomic.py',
    'version.py',
)
# Within models/: each stands on those to its right.
MODELS = ('timesformer', 'blocks', ('attention', 'ffn', 'embeddings'))

FILES = sorted(PACKAGE.rglob('*.py'))


def _part(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix('').parts[0]


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = '.' * node.level + (node.module or '')
            yield from (f'{start}.{alias.name}' for alias in node.names)


def _part_of_name(name: str) -> str:
    part = f'{name}.'.split('.')[1]
    there = (PACKAGE / part).is_dir() or (PACKAGE / f'{part}.py').is_file()
    return part if part and there else '__init__'


@pytest.mark.parametrize('file', FILES, ids=[str(file.relative_to(PACKAGE)) for file in FILES])
def test_file_imports_only_what_its_part_may(file: Path) -> None:
    part, inside = _part(file), str(file.relative_to(PACKAGE))
    assert part in MAY_IMPORT, f'{part} is new: add it to the tables above'
    for name in _imports(file):
        assert not name.startswith('.'), f'{name}: write mmtimesformer.… instead'
        top = name.split('.')[0]
        if top == 'mmtimesformer':
            other = _part_of_name(name)
            if other == part or (inside, other) in EXCEPTIONS:
                continue
            if other == '__init__':  # `mmtimesformer.__version__`
                assert part in USE_THE_PACKAGE, f'{part} imports {name}'
                continue
            assert other in ALLOWED[part], f'{part} imports {name}'
            assert name.startswith(ONLY.get((part, other), '')), f'{part} imports {name}'
        elif top not in sys.stdlib_module_names:
            assert top in MAY_IMPORT[part], f'{part} imports {name}'
            assert inside not in STANDARD_LIBRARY_ALONE, f'{inside} imports {name}'


def test_no_part_stands_on_one_above_it() -> None:
    order = list(TopologicalSorter(ALLOWED).static_order())  # an error if there is a circle
    assert set(order) == set(MAY_IMPORT)
    assert order.index('models') < order.index('engine') < order.index('inference')


def test_blocks_stand_on_attention_and_never_the_other_way() -> None:
    floors = [{floor} if isinstance(floor, str) else set(floor) for floor in MODELS]
    for above, floor in enumerate(floors[1:], 1):
        forbidden = set().union(*floors[:above])
        for module in floor:
            names = [name.split('.') for name in _imports(PACKAGE / f'models/{module}.py')]
            models = {name[2] for name in names if name[:2] == ['mmtimesformer', 'models']}
            assert not models & forbidden, f'models/{module}.py imports {models & forbidden}'


def test_cli_imports_torch_and_mmaction_inside_functions_only() -> None:
    for file in (PACKAGE / 'cli.py', PACKAGE / 'terminal.py'):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in getattr(node, 'names', [])]
            names.append(str(getattr(node, 'module', '')))
            assert not {'mmaction', 'torch'} & {n.split('.')[0] for n in names}, file


def test_configs_name_registry_strings_and_import_nothing() -> None:
    for file in (ROOT / 'configs').rglob('*.py'):
        assert not list(_imports(file)), file


PAGE = {'fastapi', 'gradio', 'uvicorn'}
IN_TOOLS = CORE | PAGE | {'mmaction', 'mmtimesformer', 'rich', 'submitit', 'train', 'yaml'}


def test_tools_import_the_package_and_what_it_stands_on() -> None:
    notebooks = {'ipykernel', 'nbclient', 'nbformat', 'traitlets'}
    dev = {'PIL', 'av', *notebooks, *(file.stem for file in (ROOT / 'tools' / 'dev').glob('*.py'))}
    for file in (ROOT / 'tools').rglob('*.py'):
        known = {*IN_TOOLS, *sys.stdlib_module_names, *(dev if file.parent.name == 'dev' else ())}
        for name in _imports(file):
            assert name.split('.')[0] in known, f'{file} imports {name}'


def _python(code: str) -> str:
    """Run code in a new interpreter: other tests have imported everything in this one."""
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_no_video_library() -> None:
    """OpenCV is MMEngine's own: its Runner draws with it."""
    names = ['mmaction', 'mmcv', 'decord', 'av', 'torchcodec', 'matplotlib.pyplot']
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
