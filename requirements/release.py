"""Check a release, build it, and try it: the steps of the release workflow, also on your machine.

    python requirements/release.py check              # all steps, in temporary folders
    python requirements/release.py sources [--tag v0.1.0 --repository https://HOST/OWNER/NAME]
    python requirements/release.py build dist         # sdist and wheel, checked
    python requirements/release.py smoke dist         # install the wheel and use it

`sources` compares the version in all places. With --tag it also requires what a published release
has: a date in CHANGELOG.md and CITATION.cff, and the repository address. Nothing is uploaded.
Standard library only. Exit code: 0 all is well, 1 something is wrong, each in one line.
"""

import argparse
import ast
import contextlib
import datetime
import email
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ('.git', '.venv*', '.*_cache', '__pycache__', '*.egg-info')
LEFT_OUT_AT_THE_TOP = ('build', 'dist', 'data', 'work_dirs', 'demo_out')
UNRELEASED = 'unreleased'
IN_THE_SDIST = ('CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'README.md', 'tests/conftest.py')
SMOKE = """
import pathlib, sys, torch, mmtimesformer
assert pathlib.Path(mmtimesformer.__file__).is_relative_to(sys.prefix), mmtimesformer.__file__
model = mmtimesformer.TimeSformer(num_frames=2, img_size=16, patch_size=8, embed_dims=8,
                                  num_layers=1, num_heads=2)
assert model(torch.zeros(1, 3, 2, 16, 16)).shape == (1, 8)
from mmtimesformer.config.find import shipped_configs
print(mmtimesformer.__version__, 'torch', torch.__version__, len(shipped_configs()), 'configs')
"""


def main(arguments=None):
    """Run the steps that the command line names; return the exit code."""
    options = parse_args(arguments)
    try:
        if options.step == 'check':
            with tempfile.TemporaryDirectory() as folder:
                check_sources(options.tag, options.repository)
                build(Path(folder) / 'dist')
                smoke(Path(folder) / 'dist')
        elif options.step == 'sources':
            check_sources(options.tag, options.repository)
        else:
            {'build': build, 'smoke': smoke}[options.step](options.folder)
    except (OSError, ValueError) as error:
        print(f'release: {error}', file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f'release: {" ".join(error.cmd[:6])} … failed, see above', file=sys.stderr)
        return 1
    return 0


def parse_args(arguments):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest='step', required=True, metavar='STEP')
    for name in ('check', 'sources'):
        step = steps.add_parser(name)
        step.add_argument('--tag', help='the tag of the release, v plus the version')
        step.add_argument('--repository', help='the address where the workflow runs')
    for name in ('build', 'smoke'):
        steps.add_parser(name).add_argument('folder', type=Path, help='for sdist and wheel')
    return parser.parse_args(arguments)


# ---- sources ------------------------------------------------------------------------------------


def check_sources(tag=None, repository=None, root=ROOT):
    """Compare what the files state with each other, and with the tag of a release.

    Raises:
        ValueError: Something differs; the message lists all.
    """
    version = version_of(root)
    problems = list(differences(root, version))
    if tag:
        problems += not_ready(root, version, tag, repository)
    if problems:
        raise ValueError('\n  '.join(['this is not ready:', *problems]))
    log(f'version {version} is the same in all places' + (f', and {tag} is ready' if tag else ''))


def version_of(root):
    """Return the version of `mmtimesformer/version.py`, without importing it."""
    text = (root / 'mmtimesformer' / 'version.py').read_text(encoding='utf-8')
    return ast.literal_eval(re.search(r'^__version__ = (.+)$', text, re.MULTILINE)[1])


def changelog_entry(root):
    """Return version and date of the first entry of CHANGELOG.md, as they are written."""
    text = (root / 'CHANGELOG.md').read_text(encoding='utf-8')
    found = re.search(r'^## \[(.+)\] - (.+)$', text, re.MULTILINE)
    return found.groups() if found else ('no version', 'no date')


def citation_value(root, key):
    """Return the text of a top-level key of CITATION.cff, or `None`."""
    text = (root / 'CITATION.cff').read_text(encoding='utf-8')
    found = re.search(rf'^{key}: (.+)$', text, re.MULTILINE)
    return found and found[1].strip('\'"')


def repository_of(root):
    """Return the repository address of pyproject.toml; empty while there is none."""
    text = (root / 'pyproject.toml').read_text(encoding='utf-8')
    return re.search(r'^repository = "(.*)"$', text, re.MULTILINE)[1]


def differences(root, version):
    """Give a line for each place whose version or date differs from the others."""
    (logged, date), cited = changelog_entry(root), citation_value(root, 'version')
    if logged != version:
        yield f'CHANGELOG.md begins with {logged}; mmtimesformer/version.py has {version}'
    if cited != version:
        yield f'CITATION.cff has version {cited}; mmtimesformer/version.py has {version}'
    if date != UNRELEASED and not is_a_date(date):
        yield (
            f'CHANGELOG.md: the date of {logged} is {date!r}; write "{UNRELEASED}", and on the '
            'day of the release that day as YYYY-MM-DD'
        )
    released = citation_value(root, 'date-released') or UNRELEASED
    if released != date:
        yield f'CITATION.cff has date-released {released}; CHANGELOG.md has {date}'


def is_a_date(text):
    """Return whether a text is a day, not later than today (UTC), as YYYY-MM-DD."""
    try:
        day = datetime.datetime.strptime(text, '%Y-%m-%d').date()
    except ValueError:
        return False
    return text == day.isoformat() and day <= datetime.datetime.now(datetime.timezone.utc).date()


def not_ready(root, version, tag, repository):
    """Give a line for each thing that a published release needs and that is missing."""
    address = repository_of(root)
    if tag != f'v{version}':
        yield f'the tag is {tag}; mmtimesformer/version.py has {version}, whose tag is v{version}'
    if changelog_entry(root)[1] == UNRELEASED:
        yield (
            f'CHANGELOG.md calls {version} {UNRELEASED}; write the day of the release, there and '
            'as date-released in CITATION.cff'
        )
    if not address:
        yield 'pyproject.toml has no repository address; set repository in [tool.mmtimesformer]'
    elif repository and address.lower() != repository.lower():
        yield f'pyproject.toml has repository = "{address}"; this runs in {repository}'


# ---- build --------------------------------------------------------------------------------------


def build(folder, root=ROOT):
    """Build sdist and wheel into a folder, from the files that git tracks, and check both.

    Raises:
        ValueError: The folder has files, or what was built is not what is promised.
        subprocess.CalledProcessError: A command failed; it printed why.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f'{folder} has files; name a new or an empty folder')
    with tempfile.TemporaryDirectory() as temporary:
        tree, other = Path(temporary) / 'tree', Path(temporary) / 'other'
        copy_sources(root, tree)
        python = make_venv(Path(temporary) / 'venv', '-r', str(root / 'requirements/release.txt'))
        command = [str(python), '-m', 'build', '--no-isolation', '--outdir']
        run(*command, str(folder.absolute()), cwd=tree)  # the wheel from the sdist
        run(*command, str(other), '--wheel', cwd=tree)  # and from the tree itself
        sdist, wheel = distributions(folder)
        if contents(wheel) != contents(next(other.iterdir())):
            raise ValueError('the wheel of the sdist differs from the wheel of the checkout')
        run(str(python), '-m', 'twine', 'check', '--strict', str(sdist), str(wheel))
        check_sdist(sdist, tree)
        check_wheel(wheel, tree)
    for file in (sdist, wheel):
        log(f'{file.name}  {file.stat().st_size} bytes  sha256 {sha256(file.read_bytes())}')


def copy_sources(root, target):
    """Copy the files that git tracks; outside of a clone, all but what builds and runs write."""
    if (root / '.git').exists():
        command = ['git', '-C', str(root), 'ls-files', '-z']
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split('\0')):
            if (root / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, target / name)
        return

    def left_out(path, names):
        patterns = LEFT_OUT + (LEFT_OUT_AT_THE_TOP if path == str(root) else ())
        return shutil.ignore_patterns(*patterns)(path, names)

    shutil.copytree(root, target, ignore=left_out)


def distributions(folder):
    """Return the one sdist and the one wheel of a folder."""
    found = [sorted(folder.glob(pattern)) for pattern in ('*.tar.gz', '*.whl')]
    if [len(files) for files in found] != [1, 1]:
        raise ValueError(f'{folder} does not have one sdist and one wheel')
    return found[0][0], found[1][0]


def contents(wheel):
    """Return the checksum of each file of a wheel, without the list that repeats them."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith('/RECORD')]
        return {name: sha256(archive.read(name)) for name in names}


def sha256(content):
    """Return the checksum of bytes, as text."""
    return hashlib.sha256(content).hexdigest()


def check_sdist(sdist, tree):
    """Require in the sdist what builds, documents and tests the package."""
    with tarfile.open(sdist) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    docs = [*(tree / 'docs').rglob('*.*'), *(tree / 'notebooks').glob('*.*')]
    wanted = {*IN_THE_SDIST, *(file.relative_to(tree).as_posix() for file in docs)}
    missing = sorted(wanted - names)
    if missing:
        raise ValueError(f'{sdist.name} lacks {", ".join(missing)}; see MANIFEST.in')


def check_wheel(wheel, tree):
    """Require configs, tools and index in the wheel, and no tests and no maintainers' tools."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith('.dist-info/METADATA'))
        page = email.message_from_bytes(archive.read(metadata)).get_payload()
    shipped = {name for name in names if name.startswith('mmtimesformer/.mim/')}
    expected = {f'mmtimesformer/.mim/{name}' for name in shipped_files(tree)}
    problems = [f'lacks {name}' for name in sorted(expected - shipped)]
    problems += [f'has {name}' for name in sorted(shipped - expected)]
    problems += [f'has {name}' for name in names if not re.match(r'mmtimesformer[/-]', name)]
    problems += [f'has the relative link {link}' for link in relative_links(page)]
    if problems:
        raise ValueError('\n  '.join([f'{wheel.name}:', *problems]))


def shipped_files(tree):
    """Return the names of the files that a wheel carries for OpenMMLab, from the root."""
    files = [file for folder in ('configs', 'tools') for file in (tree / folder).rglob('*')]
    names = [file.relative_to(tree).as_posix() for file in files if file.is_file()]
    shipped = [name for name in names if not re.search(r'__pycache__|^tools/dev/', name)]
    return [*shipped, 'model-index.yml']


def relative_links(page):
    """Return the targets of links and images of a page in Markdown that need a folder around it."""
    text = re.sub(r'^ *```.*?^ *```', '', page, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r'\]\(([^)]*)\)|^\[[^]]+\]: *(\S+)|(?:src|href)="([^"]*)"', text, re.M)
    return [target for found in targets for target in found if target and ':' not in target]


# ---- smoke --------------------------------------------------------------------------------------


def smoke(folder):
    """Install the wheel into a new environment with what it needs, and use it in another folder.

    Raises:
        ValueError: There is not one wheel.
        subprocess.CalledProcessError: A command failed; it printed why.
    """
    _, wheel = distributions(folder)
    with tempfile.TemporaryDirectory() as temporary:
        python = make_venv(Path(temporary) / 'venv', str(wheel.absolute()))
        work = Path(temporary) / 'work'
        work.mkdir()
        run(str(python), '-m', 'pip', 'check', cwd=work)
        run(str(python), '-c', SMOKE, cwd=work)
        run(str(python), '-m', 'mmtimesformer', '--help', cwd=work, stdout=subprocess.DEVNULL)
    log(f'{wheel.name} works in a new environment of Python {sys.version.partition(" ")[0]}')


def make_venv(folder, *requirements):
    """Make an environment of this Python, install requirements, and return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / 'bin' / 'python'
    run(str(python), '-m', 'pip', 'install', '-q', *requirements)
    return python


def run(*command, **options):
    """Run a command without this project on its path; an error ends the step."""
    environment = {**os.environ, 'PIP_DISABLE_PIP_VERSION_CHECK': '1'}
    with contextlib.suppress(KeyError):
        del environment['PYTHONPATH']
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment, **options)


def log(text):
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == '__main__':
    sys.exit(main())
