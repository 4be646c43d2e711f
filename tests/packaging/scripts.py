"""Import setup.py and the scripts of requirements/, build a wheel, and run commands."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def load_script(name: str) -> ModuleType:
    """Import a file of the checkout, named from its root, without running its command line."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_command(*command: str | Path, **options: object) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    return done.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel as pip does, offline, with the setuptools that is installed."""
    pip = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation']
    run_command(*pip, '-w', folder, source)
    (wheel,) = folder.glob('*.whl')
    return wheel
