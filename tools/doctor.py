#!/usr/bin/env python3
"""Find and fix known problems of this environment: versions and packages that break MMAction2.

    python tools/doctor.py          the report, for reading
    python tools/doctor.py --json   for a bug report or a script
    python tools/doctor.py --list   all known problems, as a Markdown table
    python tools/doctor.py --fix    show the commands that are safe, ask, and run them

Without a checkout: python -m mmtimesformer doctor. Exits with 1 if a problem breaks training or
testing, otherwise with 0; after --fix, by what is left. Needs only Python and imports none of the
packages: a broken one cannot break the report.

--fix works inside a virtual environment or a conda environment, not in the system's Python. It
never changes torch. Before a command that installs, pip is asked whether it can; where it cannot,
nothing of that fix is run.
"""

from __future__ import annotations  # so that an older Python gets to the report

import argparse
import importlib
import importlib.machinery
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REFERENCE = "pip install mmaction2==1.1.0 'mmengine>=0.11.0rc3' mmcv-lite==2.0.1"
TRAP_KEYS = 'name', 'happens', 'fix', 'breaks', 'safe', 'handled'  # of the JSON report
DRN_LOSS = 'models/localizers/drn/drn_utils/loss.py'
MODEL_INDEX = '.mim/model-index.yml'
LIST = re.compile(r'^ +Config: *\n +- ', re.MULTILINE)  # of a metafile
TORCH_BOUND, MMENGINE_BOUND = '2.14', '0.12'  # as in pyproject.toml
ONE_MMCV = 'pip uninstall -y mmcv mmcv-lite && pip install mmcv-lite==2.0.1'

# Packages of the report, in this order, and their use.
PACKAGES = {
    'torch': 'the model',
    'einops': 'the model',
    'numpy': 'the model',
    'mmengine': 'configs, training loop',
    'mmaction2': 'video data sets, recognizer, head',
    'mmcv': "MMAction2's image functions, with compiled operators",
    'mmcv-lite': "MMAction2's image functions",
    'decord': 'reads videos',
    'decord2': 'reads videos, imported as decord',
    'av': 'reads and writes videos (PyAV)',
    'opencv-python': 'cv2',
    'opencv-contrib-python': 'cv2',
    'opencv-python-headless': 'cv2',
    'opencv-contrib-python-headless': 'cv2',
    'safetensors': 'reads .safetensors',
    'transformers': 'tests compare with it',
    'torchvision': 'not used',
    'setuptools': 'builds the wheel; had pkg_resources up to 81',
    'importlib-metadata': 'MMAction2 1.2.0 needs it',
    'moviepy': "MMAction2's visualizer writes videos with it",
    'openmim': 'the mim command',
    'torchcodec': 'optional: reads videos',
    'imgaug': "MMAction2's ImgAug",
    'pytorchvideo': "MMAction2's PytorchVideoWrapper",
    'seaborn': "MMAction2's analyze_logs.py",
    'timm': 'not used; MMAction2 1.2.0 and two of its configs',
}


@dataclass
class Machine:
    """Versions and places of packages, found without importing them.

    Attributes:
        python: version, such as `(3, 11)`.
        system: `sys.platform` and the processor, such as `('linux', 'x86_64')`.
        versions: version by distribution, names normalised (`mmcv-lite`, never `mmcv_lite`).
        modules: folder or file by importable module; None where only an empty folder is left.
    """

    python: tuple[int, int]
    system: tuple[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    modules: dict[str, Path | None] = field(default_factory=dict)

    def has(self, *names: str) -> bool:
        """Return whether all of these distributions are installed."""
        return all(name in self.versions for name in names)

    def below(self, name: str, bound: str) -> bool:
        """Return whether a distribution is installed in a version before `bound`."""
        return name in self.versions and order(self.versions[name]) < order(bound)

    def source(self, module: str, file: str) -> str:
        """Return the text of a file inside an installed module, empty if there is none."""
        folder = self.modules.get(module)
        path = folder / file if folder else None
        return path.read_text(errors='replace') if path and path.is_file() else ''

    def decord_has_a_wheel(self) -> bool:
        """Return whether decord 0.6.0 was published for this machine."""
        return self.system[0] != 'darwin' and self.system[1] in ('x86_64', 'AMD64')


@dataclass(frozen=True)
class Trap:
    """A known problem of a machine.

    Attributes:
        name: its name in the report.
        find: returns what this machine has, in a few words, or an empty text.
        happens: what the user sees.
        fix: the command that fixes it.
        breaks: whether training or testing fails.
        safe: whether ``--fix`` may run the command: it installs or removes, inside the environment,
            packages that MMAction2 and mmtimesformer need in this state, and never torch.
        handled: what `import mmtimesformer` does about it, for MMAction2's other models too.
    """

    name: str
    find: Callable[[Machine], str]
    happens: str
    fix: str
    breaks: bool = True
    safe: bool = False
    handled: str = ''


def order(version: str) -> tuple[tuple[int, ...], int, int]:
    """Return a key that sorts versions, as far as PEP 440 is needed here.

    `2.13.0+cpu` sorts as `2.13.0`, and `0.11.0rc3` before `0.11.0`.
    """
    numbers, phase, count = re.match(r'(\d+(?:\.\d+)*)(?:\.?(a|b|rc|dev)(\d*))?', version).groups()
    release = [int(number) for number in numbers.split('.')]
    while release and release[-1] == 0:
        release.pop()
    return tuple(release), {'dev': -4, 'a': -3, 'b': -2, 'rc': -1, None: 0}[phase], int(count or 0)


def installed(machine: Machine, names: Sequence[str]) -> str:
    """Return the named distributions that are installed, as `name version and name version`."""
    return ' and '.join(f'{name} {machine.versions[name]}' for name in names if machine.has(name))


def all_of(*names: str) -> Callable[[Machine], str]:
    """Return a detector of distributions that must not be installed together."""
    return lambda machine: installed(machine, names) if machine.has(*names) else ''


def older(name: str, bound: str) -> Callable[[Machine], str]:
    """Return a detector of a distribution before a version."""
    return lambda machine: installed(machine, [name]) if machine.below(name, bound) else ''


def not_below(name: str, bound: str) -> Callable[[Machine], str]:
    """Return a detector of a distribution from a version on."""
    return lambda machine: '' if machine.below(name, bound) else installed(machine, [name])


def find_wrong_python(machine: Machine) -> str:
    """MMEngine and mmtimesformer need Python 3.10 to 3.13."""
    return '' if (3, 10) <= machine.python < (3, 14) else 'Python {}.{}'.format(*machine.python)


def find_missing_core(machine: Machine) -> str:
    """Without these four `import mmtimesformer` fails."""
    missing = [
        name for name in ('torch', 'einops', 'numpy', 'mmengine') if not machine.modules.get(name)
    ]
    return f'no {", no ".join(missing)}' if missing else ''


def find_missing_mmaction(machine: Machine) -> str:
    """Without MMAction2 the model works, but there are no data sets, recognizer and head."""
    missing = not machine.modules.get('mmaction')
    return 'no mmaction2' if missing and machine.decord_has_a_wheel() else ''


def find_missing_mmaction_without_decord(machine: Machine) -> str:
    """MMAction2 requires decord, which pip cannot install on this machine."""
    missing = not machine.modules.get('mmaction')
    found = 'no mmaction2, and no decord for {1} on {0}'.format(*machine.system)
    return found if missing and not machine.decord_has_a_wheel() else ''


def find_missing_mmcv(machine: Machine) -> str:
    """MMAction2 imports mmcv and does not require it."""
    missing = machine.has('mmaction2') and 'mmcv' not in machine.modules
    return 'mmaction2 without mmcv or mmcv-lite' if missing else ''


def find_empty_mmcv(machine: Machine) -> str:
    """Uninstalling one of mmcv and mmcv-lite removes the files of the other too."""
    empty = 'mmcv' in machine.modules and not machine.modules['mmcv']
    return 'a folder mmcv without its __init__.py' if empty else ''


def find_refused_version(machine: Machine, package: str, names: Sequence[str]) -> str:
    """Read from MMAction2 itself which versions of another package it accepts."""
    text = machine.source('mmaction', '__init__.py')
    bounds = [
        re.search(rf"{package}_{end}_version = '([^']+)'", text) for end in ('minimum', 'maximum')
    ]
    have = [machine.versions[name] for name in names if machine.has(name)]
    if not have or not all(bounds):
        return ''
    low, high = (bound.group(1) for bound in bounds)
    fits = order(low) <= order(have[0]) < order(high)
    ours = installed(machine, ['mmaction2'])
    return '' if fits else f'{package} {have[0]}, while {ours} takes {low} up to but not {high}'


def find_missing_drn(machine: Machine) -> str:
    """The wheel of MMAction2 1.2.0 lacks a folder that it imports."""
    asks = 'drn.drn' in machine.source('mmaction', 'models/localizers/__init__.py')
    has = machine.source('mmaction', 'models/localizers/drn/drn.py')
    return 'no mmaction.models.localizers.drn' if asks and not has else ''


def find_missing_importlib_metadata(machine: Machine) -> str:
    """MMAction2 1.2.0 imports it and does not require it."""
    asks = 'importlib_metadata' in machine.source('mmaction', 'utils/dependency.py')
    return 'no importlib_metadata' if asks and 'importlib_metadata' not in machine.modules else ''


def find_multimodal(machine: Machine) -> str:
    """With transformers, MMAction2 1.2.0 imports models that need an old timm and transformers."""
    asks = 'WITH_MULTIMODAL' in machine.source('mmaction', 'utils/dependency.py')
    found = installed(machine, ['mmaction2', 'transformers'])
    return found if asks and machine.has('transformers') else ''


def find_opencvs(machine: Machine) -> str:
    """The four OpenCV packages install into the same folder cv2."""
    names = [name for name in PACKAGES if PACKAGES[name] == 'cv2' and machine.has(name)]
    return installed(machine, names) if len(names) > 1 else ''


def find_no_video_reader(machine: Machine) -> str:
    """One of decord and PyAV must be there."""
    return '' if machine.modules.get('decord') or machine.modules.get('av') else 'no decord, no av'


def find_torchvision_of_other_build(machine: Machine) -> str:
    """The published wheel of torchvision is linked against the CUDA build of torch."""
    torch, vision = (machine.versions.get(name, '') for name in ('torch', 'torchvision'))
    other = vision and '+cpu' in torch and '+cpu' not in vision
    return installed(machine, ['torch', 'torchvision']) if other else ''


def find_missing_pkg_resources(machine: Machine) -> str:
    """MMEngine before 0.11 needs pkg_resources to find `mmaction::`."""
    asks = machine.below('mmengine', '0.11.0rc0') and 'pkg_resources' not in machine.modules
    return f'{installed(machine, ["mmengine"])} without pkg_resources' if asks else ''


def find_mim_without_pkg_resources(machine: Machine) -> str:
    """The mim command imports pkg_resources."""
    asks = machine.has('openmim') and 'pkg_resources' not in machine.modules
    return installed(machine, ['openmim', 'setuptools']) if asks else ''


def find_new_moviepy(machine: Machine) -> str:
    """MMAction2 imports moviepy.editor, which moviepy 2 dropped."""
    return '' if machine.below('moviepy', '2') else installed(machine, ['moviepy'])


def find_jitter_under_numpy_2(machine: Machine) -> str:
    """Find `ColorJitter` that adds negative numbers to bytes, which NumPy 2 refuses."""
    transforms = machine.source('mmaction', 'datasets/transforms/processing.py')
    if 'hsv[..., 0] + offset' not in transforms or machine.below('numpy', '2'):
        return ''
    return installed(machine, ('numpy',))


def find_names_removed_by_numpy_2(machine: Machine) -> str:
    """Find `PoseCompact`, which uses a name that NumPy 2 removed."""
    uses = 'np.Inf' in machine.source('mmaction', 'datasets/transforms/pose_transforms.py')
    return installed(machine, ('numpy',)) if uses and not machine.below('numpy', '2') else ''


def find_imgaug_under_numpy_2(machine: Machine) -> str:
    """Find imgaug, whose last version reads a name that NumPy 2 no longer has."""
    if not machine.has('imgaug') or machine.below('numpy', '2'):
        return ''
    return installed(machine, ('imgaug', 'numpy'))


def find_clone_without_torchvision(machine: Machine) -> str:
    """A git clone of MMAction2 1.2.0 has the missing folder, which imports torchvision."""
    asks = 'import torchvision' in machine.source('mmaction', DRN_LOSS)
    return 'no torchvision' if asks and not machine.has('torchvision') else ''


def find_missing_mim_folder(machine: Machine) -> str:
    """An editable install of MMAction2 has no folder `.mim` with its configs."""
    there = machine.source('mmaction', '__init__.py')
    return 'no mmaction/.mim' if there and not machine.source('mmaction', MODEL_INDEX) else ''


def find_lists_in_metafiles(machine: Machine) -> str:
    """A row of MMAction2 1.1.0's metafiles lists several configs where MMEngine reads one."""
    theirs = machine.source('mmaction', '.mim/configs/localization/bsn/metafile.yml')
    reads = "model_cfg['Config'].partition" in machine.source('mmengine', 'config/utils.py')
    return installed(machine, ('mmaction2', 'mmengine')) if reads and LIST.search(theirs) else ''


def find_torchcodec_for_cuda(machine: Machine) -> str:
    """Wheels of torchcodec from 0.14 on need libraries of CUDA."""
    cpu = '+cpu' in machine.versions.get('torch', '')
    new = machine.has('torchcodec') and not machine.below('torchcodec', '0.14')
    return installed(machine, ('torch', 'torchcodec')) if cpu and new else ''


def find_moved_functional(machine: Machine) -> str:
    """Find pytorchvideo, which imports a module that torchvision 0.17 removed."""
    asks = 'functional_tensor' in machine.source('pytorchvideo', 'transforms/augmentations.py')
    there = machine.source('torchvision', 'transforms/functional_tensor.py')
    return installed(machine, ('pytorchvideo', 'torchvision')) if asks and not there else ''


def find_seaborn(machine: Machine) -> str:
    """MMAction2's analyze_logs.py fails to plot with seaborn."""
    return installed(machine, ('seaborn',)) if machine.modules.get('mmaction') else ''


def find_forks(machine: Machine) -> str:
    """The onedl forks install under the names of the originals."""
    return installed(machine, [name for name in machine.versions if name.startswith('onedl-mm')])


TRAPS = (
    Trap(
        'wrong Python',
        find_wrong_python,
        'MMEngine calls pkgutil.find_loader, which Python 3.14 dropped; our code needs 3.10.',
        'make env PYTHON=python3.12',
    ),
    Trap(
        'core packages missing',
        find_missing_core,
        '`import mmtimesformer` fails.',
        'pip install .',
    ),
    Trap(
        'MMAction2 missing',
        find_missing_mmaction,
        'The model works, but there is nothing to train and test with: `No module named mmaction`.',
        "pip install '.[mmaction]'",
    ),
    Trap(
        'MMAction2 missing, and no decord for this machine',
        find_missing_mmaction_without_decord,
        'pip refuses mmaction2, which requires decord; decord is published for x86-64 Linux and '
        'Windows only. PyAV reads the videos here.',
        'pip install av scipy opencv-contrib-python mmcv-lite==2.0.1 && '
        'pip install --no-deps mmaction2==1.1.0',
        safe=True,
    ),
    Trap(
        'mmcv missing',
        find_missing_mmcv,
        '`import mmaction` fails: MMAction2 does not install it by itself.',
        'pip install mmcv-lite==2.0.1',
        safe=True,
    ),
    Trap(
        'mmcv is an empty folder',
        find_empty_mmcv,
        "`import mmcv` passes and everything in it is missing: module 'mmcv' has no attribute "
        "'__version__'.",
        'pip uninstall -y mmcv mmcv-lite; pip install --force-reinstall --no-deps mmcv-lite==2.0.1',
        safe=True,
    ),
    Trap(
        'mmcv and mmcv-lite side by side',
        all_of('mmcv', 'mmcv-lite'),
        'They own the same folder: the one installed last has overwritten files of the other.',
        ONE_MMCV,
        safe=True,
    ),
    Trap(
        'mmcv of a version that MMAction2 refuses',
        lambda machine: find_refused_version(machine, 'mmcv', ('mmcv', 'mmcv-lite')),
        '`import mmaction` ends in AssertionError: MMCV==… is used but incompatible.',
        REFERENCE,
        safe=True,
    ),
    Trap(
        'MMEngine of a version that MMAction2 refuses',
        lambda machine: find_refused_version(machine, 'mmengine', ('mmengine',)),
        '`import mmaction` ends in AssertionError: MMEngine==… is used but incompatible.',
        REFERENCE,
        safe=True,
    ),
    Trap(
        "MMAction2 1.2.0's wheel lacks a module",
        find_missing_drn,
        "`import mmaction.models` fails: No module named 'mmaction.models.localizers.drn'.",
        REFERENCE,
        breaks=False,
        handled='a stand-in for the module',
    ),
    Trap(
        'MMAction2 1.2.0 lacks a requirement',
        find_missing_importlib_metadata,
        "`import mmaction.models` fails: No module named 'importlib_metadata'.",
        'pip install importlib-metadata',
        breaks=False,
        safe=True,
        handled="Python's own importlib.metadata stands in",
    ),
    Trap(
        'MMAction2 1.2.0 with transformers',
        find_multimodal,
        '`import mmaction.models` imports its multimodal models, which fail: No module named timm, '
        'or a name that transformers has moved since.',
        REFERENCE,
        breaks=False,
        handled="MMAction2's placeholders stand in for them without timm or with transformers 5",
    ),
    Trap(
        'two OpenCVs',
        find_opencvs,
        'They own the same folder cv2: uninstalling or updating one breaks the other.',
        'pip uninstall -y opencv-python opencv-python-headless opencv-contrib-python '
        'opencv-contrib-python-headless && pip install opencv-contrib-python',
        breaks=False,
        safe=True,
    ),
    Trap(
        'decord and decord2 side by side',
        all_of('decord', 'decord2'),
        'They own the same folder decord: the one installed last has overwritten the other.',
        'pip uninstall -y decord decord2 && pip install decord==0.6.0',
        safe=True,
    ),
    Trap(
        'no video reader',
        find_no_video_reader,
        'No video can be opened.',
        'pip install av',
        safe=True,
    ),
    Trap(
        'torchvision of another build than torch',
        find_torchvision_of_other_build,
        '`import torchvision` fails (operator torchvision::nms does not exist) and takes the start '
        'of every training, transformers and timm with it. Nothing here needs torchvision.',
        'pip uninstall -y torchvision',
        safe=True,
    ),
    Trap(
        'torch before 2.10',
        older('torch', '2.10'),
        'weights_only has known holes (CVE-2025-32434, CVE-2026-24747): a checkpoint from a '
        'stranger may run code. Safe reading is promised from 2.10 on.',
        f"pip install 'torch>=2.10,<{TORCH_BOUND}'",
        breaks=False,
    ),
    Trap(
        'torch newer than its bound',
        not_below('torch', TORCH_BOUND),
        'Private names of torch are relied on, and were checked below this version only: '
        '`import mmtimesformer` fails where one is missing, and names it.',
        f"pip install 'torch>=2.10,<{TORCH_BOUND}'",
        breaks=False,
    ),
    Trap(
        'MMEngine newer than its bound',
        not_below('mmengine', MMENGINE_BOUND),
        'Private names of MMEngine are relied on, and were checked below this version only: '
        '`import mmtimesformer` fails where one is missing, and names it.',
        f"pip install 'mmengine>=0.11.0rc3,<{MMENGINE_BOUND}'",
        breaks=False,
    ),
    Trap(
        'MMEngine before 0.11',
        older('mmengine', '0.11.0rc0'),
        'On torch >= 2.6, testing and --resume fail: Weights only load failed … HistoryBuffer.',
        "pip install 'mmengine>=0.11.0rc3'",
        breaks=False,
        handled='a reader that executes nothing reads every checkpoint',
    ),
    Trap(
        'MMEngine before 0.11 without pkg_resources',
        find_missing_pkg_resources,
        "`_base_ = 'mmaction::…'` and the model hub fail: No module named pkg_resources.",
        "pip install 'mmengine>=0.11.0rc3'",
        breaks=False,
        handled='MMEngine finds packages by importlib.metadata',
    ),
    Trap(
        'mim without pkg_resources',
        find_mim_without_pkg_resources,
        'The mim command fails: No module named pkg_resources.',
        "pip install 'setuptools>=77,<81'",
        breaks=False,
        safe=True,
    ),
    Trap(
        'moviepy 2',
        find_new_moviepy,
        "MMAction2's visualizer cannot write videos: No module named moviepy.editor. Ours writes "
        'with PyAV.',
        "pip install 'moviepy<2'",
        breaks=False,
        safe=True,
    ),
    Trap(
        "MMAction2's ColorJitter under NumPy 2",
        find_jitter_under_numpy_2,
        'Training with it ends in OverflowError: Python integer -20 out of bounds for uint8.',
        "pip install 'numpy<2'",
        breaks=False,
        handled='the transform computes in wider integers',
    ),
    Trap(
        'names that NumPy 2 removed',
        find_names_removed_by_numpy_2,
        "MMAction2's PoseCompact, MMCompact, and metrics of AVA and ActivityNet end in "
        'AttributeError: `np.Inf` was removed in the NumPy 2.0 release.',
        "pip install 'numpy<2'",
        breaks=False,
        handled='their modules get the names back',
    ),
    Trap(
        'imgaug under NumPy 2',
        find_imgaug_under_numpy_2,
        "MMAction2's ImgAug cannot be used: module 'numpy' has no attribute 'sctypes'.",
        "pip install 'numpy<2'",
        breaks=False,
    ),
    Trap(
        'a git clone of MMAction2 1.2.0 without torchvision',
        find_clone_without_torchvision,
        '`import mmaction.models` fails: No module named torchvision.',
        REFERENCE,
        breaks=False,
        handled='a stand-in for the module that needs it',
    ),
    Trap(
        'MMAction2 without its configs',
        find_missing_mim_folder,
        'An editable install has no folder .mim: `mmaction::` in configs, mim and '
        'MMAction2Inferencer find no config by its name.',
        'pip install --force-reinstall --no-deps mmaction2==1.1.0',
        breaks=False,
    ),
    Trap(
        "a list in MMAction2's metafiles",
        find_lists_in_metafiles,
        "`_base_ = 'mmaction::…'` and the model hub fail for every config: 'list' object has no "
        "attribute 'partition'.",
        'none: only MMAction2 1.2.0 has no such row, and its wheel lacks a module',
        breaks=False,
        handled='MMEngine reads such a row as one row for each config',
    ),
    Trap(
        'torchcodec for CUDA next to a torch for CPUs',
        find_torchcodec_for_cuda,
        '`import torchcodec` fails: libnvrtc.so.13 cannot be found. '
        "Only reader='torchcodec' needs it.",
        'pip uninstall -y torchcodec',
        breaks=False,
        safe=True,
    ),
    Trap(
        'setuptools before 77',
        older('setuptools', '77'),
        'torch requires 77: pip reports a conflict, and torch.compile may fail. openmim installs '
        'setuptools 60.',
        "pip install 'setuptools>=77,<81'",
        breaks=False,
        safe=True,
    ),
    Trap(
        'pytorchvideo with a torchvision it does not know',
        find_moved_functional,
        "MMAction2's PytorchVideoWrapper fails: No module named "
        'torchvision.transforms.functional_tensor.',
        "leave out the PytorchVideoWrapper lines of the config's pipeline",
        breaks=False,
    ),
    Trap(
        "seaborn with MMAction2's analyze_logs.py",
        find_seaborn,
        'plot_curve, which needs seaborn, ends in IndexError.',
        'none: python -m mmtimesformer report WORK_DIR shows the curves',
        breaks=False,
    ),
    Trap(
        'a fork under the original name',
        find_forks,
        'The onedl forks overwrite mmengine and mmcv and have no mmaction2. `make test-all` trains '
        'and tests with onedl-mmengine 0.10.12 in place of mmengine; onedl-mmcv is untested.',
        f'pip uninstall -y onedl-mmengine onedl-mmcv && {REFERENCE}',
        breaks=False,
    ),
)


def inspect_machine() -> Machine:
    """Read versions and places from metadata and file names, without imports."""
    versions = {}
    for distribution in importlib.metadata.distributions():
        name, version = distribution.metadata['Name'], distribution.version
        if name and version:  # a half-removed package has neither
            versions.setdefault(re.sub(r'[-_.]+', '-', name).lower(), version)
    modules = {}
    for name in (
        *('torch', 'einops', 'numpy', 'mmengine', 'mmaction', 'mmcv', 'decord', 'av'),
        *('importlib_metadata', 'pkg_resources', 'pytorchvideo', 'torchvision'),
    ):
        spec = importlib.machinery.PathFinder.find_spec(name)
        if spec is not None:
            modules[name] = Path(spec.origin).parent if spec.origin else None
    return Machine(
        python=sys.version_info[:2],
        system=(sys.platform, platform.machine()),
        versions=versions,
        modules=modules,
    )


def cuda_of(machine: Machine) -> str:
    """Return whether torch is a CUDA build and whether this machine has the driver."""
    build = re.search(r"^cuda\b.*= '([^']+)'", machine.source('torch', 'version.py'), re.MULTILINE)
    driver = Path('/proc/driver/nvidia/version').exists()
    made_for = f'CUDA {build.group(1)}' if build else 'CPU'
    return f'{made_for} build; this machine has {"an" if driver else "no"} NVIDIA driver'


def report(machine: Machine, traps: Sequence[tuple[Trap, str]]) -> str:
    """Return the report as text: versions, then problems and their fixes."""
    rows = [('Python', platform.python_version(), 'on {} {}'.format(*machine.system))]
    for name in filter(machine.has, PACKAGES):
        use = cuda_of(machine) if name == 'torch' else PACKAGES[name]
        rows.append((name, machine.versions[name], use))
    lines = [f'  {name:31}{version:14} {use}' for name, version, use in rows]
    for trap, found in traps:
        lines += ['', f'{label(trap):7} {trap.name}: {found}', *wrapped(trap.happens)]
        if trap.handled:
            lines += wrapped(f'`import mmtimesformer` handles it: {trap.handled}.')
        lines.append(f'  fix: {trap.fix}{" (--fix does it)" if trap.safe else ""}')
    breaking = sum(trap.breaks for trap, _ in traps)
    lines += ['', f'{len(traps)} of {len(TRAPS)} known traps here; {breaking} break train or test.']
    return '\n'.join(lines)


def wrapped(text: str) -> list[str]:
    """Return a sentence of the report as indented lines."""
    return textwrap.wrap(text, 92, initial_indent='  ', subsequent_indent='  ')


def commands_of(fix: str) -> list[list[str]]:
    """Return the words of each pip command of a fix, for this interpreter."""
    words = [shlex.split(part) for part in re.split(r'&&|;', fix)]
    return [[sys.executable, '-m', *command] for command in words]


def shown(command: Sequence[str]) -> str:
    """Return a command as one would type it."""
    return shlex.join(['python', *command[1:]])


def find_traps(machine: Machine) -> list[tuple[Trap, str]]:
    """Return the traps of a machine, each with what was found."""
    return [(trap, found) for trap in TRAPS if (found := trap.find(machine))]


def is_environment() -> bool:
    """Return whether this Python is that of a virtual or conda environment."""
    if sys.prefix != sys.base_prefix:
        return True
    folder = Path(sys.prefix)
    return (folder / 'conda-meta').is_dir() and folder.parent.name == 'envs'


def run_pip(command: Sequence[str]) -> str:
    """Run a command and return an empty text, or the end of what it printed if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return '' if done.returncode == 0 else '\n'.join(lines[-5:]) or f'exit code {done.returncode}'


def pinned(command: Sequence[str], constraints: Path) -> list[str]:
    """Return a command; one that installs keeps the installed torch."""
    return [*command, '--constraint', str(constraints)] if 'install' in command else [*command]


def apply_fix(trap: Trap, constraints: Path) -> bool:
    """Run the commands of a trap, after pip has found everything that they install."""
    commands = [pinned(command, constraints) for command in commands_of(trap.fix)]
    trials = [
        [*command, '--dry-run', '--ignore-installed', '--no-deps', '-q']
        for command in commands
        if 'install' in command
    ]
    for number, command in enumerate([*trials, *commands]):
        if number >= len(trials):
            print(f'  {shown(command)}', flush=True)
        if failed := run_pip(command):
            when = 'nothing was changed' if number < len(trials) else 'it is half done'
            print(f'  failed, {when}: {failed}')
            return False
    return True


def fix(agreed: bool) -> int:
    """Show the safe fixes of this environment, ask, run them, and return the state after."""
    machine = inspect_machine()
    safe = [trap for trap, _ in find_traps(machine) if trap.safe]
    if not is_environment():
        print(
            f'error: {sys.executable} is not in a virtual environment, and --fix changes only '
            'those; make one by `python -m venv NAME`, or run the commands of the report yourself',
            file=sys.stderr,
        )
        return 2
    for trap in safe:
        print(f'{trap.name}:')
        for command in commands_of(trap.fix):
            print(f'  {shown(command)}')
    if safe and not agreed and not asks(f'Run these commands in {sys.prefix}? [y/N] '):
        print('nothing was changed')
        return 2
    results = [run_fix(trap) for trap in safe]
    machine = inspect_machine()
    traps = find_traps(machine)
    print(report(machine, traps))
    print(f'{sum(results)} of {len(safe)} fixes were applied.')
    return int(any(trap.breaks for trap, _ in traps))


def asks(question: str) -> bool:
    """Return whether the user answers yes; without a terminal the answer is no."""
    try:
        return input(question).strip().lower() in ('y', 'yes')
    except EOFError:
        print('no answer; give --yes to run them without a question')
        return False


def run_fix(trap: Trap) -> bool:
    """Apply a fix if the trap is still there, as an earlier fix may have removed it."""
    importlib.invalidate_caches()
    machine = inspect_machine()
    if not trap.find(machine):
        return True
    print(f'fixing {trap.name}')
    torch = machine.versions.get('torch')
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / 'torch.txt'
        constraints.write_text(f'torch=={torch}\n' if torch else '')
        return apply_fix(trap, constraints)


def as_json(machine: Machine, traps: Sequence[tuple[Trap, str]]) -> str:
    """Return the report as one JSON object."""
    words = {
        'python': platform.python_version(),
        'system': machine.system,
        'versions': {name: machine.versions.get(name) for name in PACKAGES},
        'traps': [
            {'found': found} | {key: getattr(trap, key) for key in TRAP_KEYS}
            for trap, found in traps
        ],
    }
    return json.dumps(words, indent=2)


def as_table() -> str:
    """Return all known traps as a Markdown table."""
    lines = ['| | problem | what happens | `import mmtimesformer` | fix |', '|---|---|---|---|---|']
    for trap in TRAPS:
        command = trap.fix if trap.fix.startswith(('none', 'leave')) else f'`{trap.fix}`'
        cells = [label(trap), trap.name, trap.happens, trap.handled or '–', command]
        lines.append(f'| {" | ".join(cells)}{", `--fix`" if trap.safe else ""} |')
    return '\n'.join(lines) + '\n'


def label(trap: Trap) -> str:
    """Return how bad a trap is, in one word."""
    return 'BREAKS' if trap.breaks else 'HANDLED' if trap.handled else 'BEWARE'


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report, or fix what is safe, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog=getattr(sys.modules['__main__'], 'COMMAND', 'tools/doctor.py'),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument('--json', action='store_true', help='print one JSON object instead')
    choice.add_argument('--list', action='store_true', help='print all known problems')
    choice.add_argument('--fix', action='store_true', help='run the safe fixes, after a question')
    parser.add_argument('--yes', action='store_true', help='with --fix: do not ask')
    args = parser.parse_args(arguments)
    if args.yes and not args.fix:
        parser.error('--yes answers the question of --fix; give both')
    if args.fix:
        return fix(args.yes)
    if args.list:
        print(as_table(), end='')
        return 0
    machine = inspect_machine()
    traps = find_traps(machine)
    try:
        print(as_json(machine, traps) if args.json else report(machine, traps), flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(any(trap.breaks for trap, _ in traps))


if __name__ == '__main__':
    sys.exit(main())
