"""A release needs one version, tag, date and address; the workflow publishes nothing else."""

import datetime
import email
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import mmtimesformer
from tests.packaging.scripts import ROOT, load_script
from tests.packaging.test_metadata import PYTHONS

ADDRESS = 'https://github.com/owner/name'
VERSION = mmtimesformer.__version__
TAG = f'v{VERSION}'
TODAY = datetime.datetime.now(datetime.timezone.utc).date()
STATED = ('CHANGELOG.md', 'CITATION.cff', 'pyproject.toml', 'mmtimesformer/version.py')
release = load_script('requirements/release.py')


def _replace(file: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, file.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, (file, pattern)
    file.write_text(text)


def _date(root: Path, day: object) -> None:
    """Write a date into the changelog and the citation."""
    _replace(root / 'CHANGELOG.md', r'^(## \[.+\]) - .+$', rf'\1 - {day}')
    text = re.sub(r'^date-released: .+\n', '', (root / 'CITATION.cff').read_text(), flags=re.M)
    (root / 'CITATION.cff').write_text(f'{text}date-released: {day}\n')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files that state the version, ready for a release."""
    for name in STATED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    _date(tmp_path, TODAY)
    _replace(tmp_path / 'pyproject.toml', r'^repository = ".*"$', f'repository = "{ADDRESS}"')
    return tmp_path


def test_this_checkout_states_one_version() -> None:
    release.check_sources(root=ROOT)


def test_a_ready_release_passes_with_its_tag(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.check_sources(TAG, ADDRESS, root)
    assert f'{TAG} is ready' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('file', 'pattern', 'new', 'message'),
    [
        ('CHANGELOG.md', r'^## \[.+\]', '## [9.9.9]', 'CHANGELOG.md begins with 9.9.9'),
        ('CHANGELOG.md', r' - \d+-\d+-\d+$', ' - soon', 'is \'soon\'; write "unreleased"'),
        ('CHANGELOG.md', r' - \d+-\d+-\d+$', ' - 2026-02-30', "'2026-02-30'"),
        ('CHANGELOG.md', r' - \d+-\d+-\d+$', ' - unreleased', 'CHANGELOG.md has unreleased'),
        ('CITATION.cff', r'^version: .+$', 'version: 9.9.9', 'CITATION.cff has version 9.9.9'),
        ('CITATION.cff', r'^date-released: .+\n', '', 'has date-released unreleased'),
        ('mmtimesformer/version.py', r"'.+'$", "'9.9.9'", 'version.py has 9.9.9'),
    ],
)
def test_a_difference_is_named_also_without_a_tag(
    root: Path, file: str, pattern: str, new: str, message: str
) -> None:
    _replace(root / file, pattern, new)
    with pytest.raises(ValueError, match=re.escape(message)):
        release.check_sources(root=root)


def test_a_date_in_the_future_is_refused(root: Path) -> None:
    _date(root, TODAY + datetime.timedelta(days=1))
    with pytest.raises(ValueError, match='on the day of the release that day'):
        release.check_sources(root=root)


def test_a_tag_of_another_version_is_refused(root: Path) -> None:
    with pytest.raises(
        ValueError, match=f'the tag is v9.9.9; .* has {VERSION}, whose tag is {TAG}'
    ):
        release.check_sources('v9.9.9', ADDRESS, root)


def test_an_unreleased_version_has_no_tag_but_passes_without_one(root: Path) -> None:
    _date(root, 'unreleased')
    _replace(root / 'CITATION.cff', r'^date-released: .+\n', '')
    release.check_sources(root=root)
    with pytest.raises(
        ValueError, match='write the day of the release, there and as date-released'
    ):
        release.check_sources(TAG, ADDRESS, root)


def test_a_tag_needs_the_address_where_it_runs(root: Path) -> None:
    with pytest.raises(ValueError, match='this runs in https://github.com/fork/name'):
        release.check_sources(TAG, 'https://github.com/fork/name', root)
    _replace(root / 'pyproject.toml', r'^repository = ".*"$', 'repository = ""')
    with pytest.raises(ValueError, match='set repository in'):
        release.check_sources(TAG, ADDRESS, root)


def test_a_problem_is_a_message_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(['sources', '--tag', 'v9.9.9']) == 1
    assert capsys.readouterr().err.startswith('release: this is not ready:\n  the tag is v9.9.9')


def test_a_folder_with_files_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'precious').touch()
    assert release.main(['build', str(tmp_path)]) == 1
    assert release.main(['smoke', str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert 'name a new or an empty folder' in err and 'not have one sdist and one wheel' in err


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('mmtimesformer/.mim/model-index.yml', None), 'lacks mmtimesformer/.mim/model-index.yml'),
        (('mmtimesformer/.mim/tools/dev/x.py', ''), 'has mmtimesformer/.mim/tools/dev/x.py'),
        (('tests/test_x.py', ''), 'has tests/test_x.py'),
        (('mmtimesformer-1.dist-info/METADATA', 'A: b\n\n![x](x.png)'), 'relative link x.png'),
    ],
)
def test_a_wheel_that_is_not_as_promised_is_refused(
    tmp_path: Path, change: tuple[str, str | None], message: str
) -> None:
    tree, wheel = tmp_path / 'tree', tmp_path / 'x.whl'
    files = {'mmtimesformer-1.dist-info/METADATA': 'A: b\n\n[x](https://x)'}
    for name in ('configs/a.py', 'tools/b.py', 'tools/dev/c.py', 'model-index.yml'):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
        files |= {f'mmtimesformer/.mim/{name}': ''} if 'dev' not in name else {}
    for changed in ({}, dict([change])):
        with zipfile.ZipFile(wheel, 'w') as archive:
            for name, text in (files | changed).items():
                if text is not None:
                    archive.writestr(name, text)
        if not changed:
            release.check_wheel(wheel, tree)
    with pytest.raises(ValueError, match=re.escape(message)):
        release.check_wheel(wheel, tree)


# ---- the workflow -------------------------------------------------------------------------------


def _workflow(name: str) -> dict:
    text = (ROOT / '.github/workflows' / name).read_text()
    return yaml.safe_load(text.replace('\non:', '\n"on":'))  # YAML 1.1 reads `on` as true


WORKFLOW = _workflow('release.yml')
JOBS = WORKFLOW['jobs']
STEPS = [step for job in JOBS.values() for step in job.get('steps', [])]


def test_a_tag_publishes_and_a_start_by_hand_does_not() -> None:
    assert WORKFLOW['on'] == {'push': {'tags': ['v*']}, 'workflow_dispatch': None}
    publishing = [name for name, job in JOBS.items() if 'gh-action-pypi-publish' in str(job)]
    assert publishing == ['publish']
    condition = "github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')"
    assert JOBS['publish']['if'] == condition
    assert [name for name, job in JOBS.items() if 'if' in job] == ['publish']


def test_nothing_is_published_before_all_checks() -> None:
    before, waiting = set(), ['publish']
    while waiting:
        needs = JOBS[waiting.pop()].get('needs', [])
        waiting += [needs] if isinstance(needs, str) else needs
        before |= set(waiting)
    assert before == set(JOBS) - {'publish'}
    assert JOBS['test']['uses'] == './.github/workflows/ci.yml'
    assert 'workflow_call' in _workflow('ci.yml')['on']


def test_each_job_has_only_the_permissions_it_needs() -> None:
    assert WORKFLOW['permissions'] == {}
    assert _workflow('ci.yml')['permissions'] == {'contents': 'read'}
    assert {name: job['permissions'] for name, job in JOBS.items()} == {
        'test': {'contents': 'read'},
        'build': {'contents': 'read'},
        'smoke': {'contents': 'read'},
        'attest': {'id-token': 'write', 'attestations': 'write'},
        'publish': {'id-token': 'write'},
    }
    assert JOBS['publish']['environment'] == 'release'
    assert 'secrets.' not in str(WORKFLOW) and 'password' not in str(WORKFLOW)


@pytest.mark.parametrize('name', ['ci.yml', 'release.yml'])
def test_every_action_is_pinned_by_commit(name: str) -> None:
    lines = re.findall(r'uses: (.+)', (ROOT / '.github/workflows' / name).read_text())
    others = [line for line in lines if not line.startswith('./')]
    assert others
    assert all(re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40}  # v[\d.]+', line) for line in others)


def test_no_command_of_the_workflow_is_made_of_event_data() -> None:
    assert not [step['run'] for step in STEPS if '${{' in step.get('run', '')]


def test_workflow_runs_the_steps_of_the_script_on_every_python() -> None:
    commands = '\n'.join(step.get('run', '') for step in STEPS).replace('\\\n', '')
    called = [shlex.split(words) for words in re.findall(r'release\.py (.+)', commands)]
    assert {words[0] for words in called} == {'sources', 'build', 'smoke'}
    for words in called:
        release.parse_args(words)
    assert JOBS['smoke']['strategy']['matrix']['python'] == list(PYTHONS)


# ---- pages for contributors ----------------------------------------------------------------------

TEMPLATES = sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml'))


@pytest.mark.parametrize(
    'file', [file for file in TEMPLATES if file.stem != 'config'], ids=lambda file: file.stem
)
def test_issue_forms_are_valid(file: Path) -> None:
    form = yaml.safe_load(file.read_text())
    assert {'name', 'description', 'body'} <= set(form)
    for part in form['body']:
        assert part['type'] in ('markdown', 'textarea', 'input', 'dropdown', 'checkboxes')
        assert part['attributes'].get('label') or part['attributes']['value']
    ids = [part['id'] for part in form['body'] if 'id' in part]
    assert len(ids) == len(set(ids))


def test_bug_reports_ask_for_the_environment() -> None:
    assert [file.stem for file in TEMPLATES] == [
        'bug_report', 'config', 'feature_request', 'question',
    ]  # fmt: skip
    form = yaml.safe_load(TEMPLATES[0].read_text())
    (asked,) = (part for part in form['body'] if part.get('id') == 'environment')
    assert 'mmtimesformer doctor --json' in asked['attributes']['description']
    assert asked['validations']['required'] is True


def test_vulnerabilities_are_reported_privately_in_the_repository() -> None:
    assert '](../../security/advisories/new)' in (ROOT / 'SECURITY.md').read_text()
    assert '(SECURITY.md#report-a-vulnerability)' in (ROOT / 'CODE_OF_CONDUCT.md').read_text()


# ---- the whole, as a dry run ---------------------------------------------------------------------


def _python(version: str) -> Path | None:
    """Return an interpreter: on the path, or next to this one as version managers lay them."""
    if version == '{}.{}'.format(*sys.version_info):
        return Path(sys.executable)
    name = f'python{version}'
    nearby = sorted(Path(sys.base_prefix).parent.glob(f'{version}*/bin/{name}'))
    found = [Path(path) for path in [shutil.which(name)] if path] + nearby
    works = (path for path in found if not subprocess.run([path, '-c', ''], check=False).returncode)
    return next(works, None)


@pytest.fixture(scope='module')
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout as on the day of a release."""
    root = tmp_path_factory.mktemp('release') / 'checkout'
    release.copy_sources(ROOT, root)
    _date(root, TODAY)
    _replace(root / 'pyproject.toml', r'^repository = ".*"$', f'repository = "{ADDRESS}"')
    return root


def _run(python: Path | str, root: Path, *arguments: object) -> str:
    command = [str(python), 'requirements/release.py', *map(str, arguments)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


@pytest.fixture(scope='module')
def built(checkout: Path) -> Path:
    """The folder with sdist and wheel, built and checked as the workflow does."""
    _run(sys.executable, checkout, 'sources', '--tag', TAG, '--repository', ADDRESS)
    _run(sys.executable, checkout, 'build', 'dist')
    return checkout / 'dist'


@pytest.mark.slow
def test_page_and_links_of_what_is_built_are_absolute(built: Path) -> None:
    (wheel,) = built.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('/METADATA'))
        metadata = email.message_from_bytes(archive.read(name))
    assert f'Source, {ADDRESS}' in metadata.get_all('Project-URL')
    assert metadata['License-Expression'] == 'Apache-2.0'
    assert metadata['Description-Content-Type'] == 'text/markdown'
    page = metadata.get_payload()
    assert release.relative_links(page) == []
    assert page.count(f'{ADDRESS}/raw/{TAG}/docs/images/') >= 6


@pytest.mark.slow
@pytest.mark.parametrize('version', PYTHONS)
def test_wheel_works_in_a_new_environment(built: Path, version: str) -> None:
    """With a CUDA build of torch this takes 5 GB on the disk, and is removed at the end."""
    python = _python(version)
    if not python:
        pytest.skip(f'there is no Python {version} here')
    if shutil.disk_usage(built).free < 12 * 1024**3:
        pytest.skip(f'less than 12 GB are free below {built}')
    assert f'works in a new environment of Python {version}' in _run(
        python, built.parent, 'smoke', 'dist'
    )


@pytest.mark.slow
def test_dry_run_does_all_steps_at_once(checkout: Path) -> None:
    output = _run(sys.executable, checkout, 'check', '--tag', TAG, '--repository', ADDRESS)
    for words in (f'{TAG} is ready', 'mmtimesformer-', 'works in a new environment'):
        assert words in output
