"""Tar shards: no unfinished file has a final name, and a killed run is continued."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtimesformer.datasets.preparation import packing
from mmtimesformer.datasets.tar_shards.index import parse_index

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'data' / 'write_shards.py'


@pytest.fixture
def source(tiny_videos: Path, tmp_path: Path) -> Path:
    """Thirty names of six videos, one that is not a video and one that does not exist."""
    folder = tmp_path / 'videos'
    (folder / 'some class').mkdir(parents=True)
    names = []
    for i in range(30):
        names.append(f'some class/{i}.mp4')
        (folder / names[-1]).write_bytes((tiny_videos / f'{i % 6}.mp4').read_bytes())
    (folder / 'page.mp4').write_text('<html>404</html>')
    names[7:7] = ['page.mp4', 'nowhere.mp4']
    lines = ''.join(f'{name} {i % 5}\n' for i, name in enumerate(names))
    (tmp_path / 'list.txt').write_text(lines)
    return folder


@pytest.fixture
def tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> Callable[..., tuple[int, str]]:
    """Run the tool in this process, in ``tmp_path``: its exit code and its output."""
    monkeypatch.chdir(tmp_path)
    spec: Any = importlib.util.spec_from_file_location('write_shards', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words: object) -> tuple[int, str]:
        code = module.main([str(word) for word in words])
        output = capfd.readouterr()
        assert 'Traceback' not in output.out + output.err
        return code, output.out + output.err

    return run


WORDS = ['list.txt', 'videos', 'out', '--shard-size', '0.04', '--num-workers', '2']


def contents(out: Path) -> dict[str, bytes]:
    """The content of a folder, each tar shard of which must be complete."""
    for path in out.glob('*.tar'):
        with tarfile.open(path) as tar:
            for info in tar:
                assert len(tar.extractfile(info).read()) == info.size
    return {path.name: path.read_bytes() for path in sorted(out.glob('[!.]*'))}


def test_a_list_becomes_tar_shards_and_an_index(
    tool: Callable[..., tuple[int, str]], source: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in source.rglob('*.mp4')}
    code, output = tool(*WORDS)
    assert code == 3, 'two could not be read'
    out = tmp_path / 'out'
    assert f'{len(list(out.glob("*.tar")))} tar shards written, 0 there already' in output
    assert '30 videos in' in output
    failed = (out / 'failed.txt').read_text()
    assert 'videos/page.mp4\tit is text' in failed
    assert 'videos/nowhere.mp4\tit does not exist' in failed
    lines = (tmp_path / 'list.txt').read_text().splitlines()
    entries = parse_index((out / 'index.tsv').read_text(), 'index.tsv')
    assert [f'{e.name} {e.labels[0]}' for e in entries] == lines
    assert [i for i, entry in enumerate(entries) if entry.member is None] == [7, 8]
    for entry in entries:
        if entry.member:
            with (out / entry.member.shard).open('rb') as shard:
                shard.seek(entry.member.offset)
                assert shard.read(entry.member.size) == before[source / entry.name]
    assert {path: path.read_bytes() for path in source.rglob('*.mp4')} == before

    first = contents(out)
    assert len(list(out.glob('*.tar'))) > 3
    assert max(len(content) for content in first.values()) < 2 * 40_000
    (out / 'shard-000001.tar').unlink()
    times = {path: path.stat().st_mtime_ns for path in out.glob('*.tar')}
    code, output = tool(*WORDS)
    assert '1 tar shards written' in output
    assert {path: path.stat().st_mtime_ns for path in times} == times
    again = contents(out)
    assert again == first


def test_the_numbers_at_the_end_of_a_line_are_its_labels(tmp_path: Path) -> None:
    lines = ['a.mp4 1', 'a 1/b 2.mp4 3', 'c.mp4 0 4 2', 'd 5.mp4', 'e 6.mp4\t7\t8', 'f.mp4 -1']
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    videos = packing.list_labelled(tmp_path / 'list.txt')
    assert [(video.name, video.labels) for video in videos] == [
        ('a.mp4', (1,)),
        ('a 1/b 2.mp4', (3,)),
        ('c.mp4', (0, 4, 2)),
        ('d 5.mp4', ()),
        ('e 6.mp4', (7, 8)),
        ('f.mp4', (-1,)),
    ]


@pytest.mark.slow
def test_a_killed_run_leaves_complete_tar_shards_and_is_continued(
    source: Path, tmp_path: Path
) -> None:
    """Killed with all its processes, as soon as there are some shards."""
    out = tmp_path / 'out'
    command = [sys.executable, str(TOOL), *WORDS]
    how: Any = {'cwd': tmp_path, 'env': {**os.environ, 'PYTHONPATH': str(ROOT)}}
    how.update(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = subprocess.Popen(command, **how)
    deadline = time.monotonic() + 300
    while not list(out.glob('*.tar')) and time.monotonic() < deadline:
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    run.wait()
    time.sleep(0.5)  # its processes see that it is gone
    shards = [name for name in contents(out) if name.startswith('shard-')]
    assert shards
    assert not (out / 'index.tsv').exists()
    assert subprocess.run(command, **how, check=False).returncode == 3
    videos, written = packing.list_labelled(tmp_path / 'list.txt'), contents(out)
    for shard in packing.plan_tar_shards(videos, source, tmp_path / 'other', 40_000, 60):
        packing.write_tar_shard(shard)
        assert written.pop(shard.path.name) == shard.path.read_bytes()
    assert written.keys() == {'failed.txt', 'index.tsv', 'plan.json'}


def test_a_tar_shard_is_read_back_before_it_gets_its_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = packing.list_labelled(tmp_path / 'list.txt')
    shard, *_ = packing.plan_tar_shards(videos, source, tmp_path / 'out', 60_000, 60)
    digest, count = packing._digest, iter(range(99))
    monkeypatch.setattr(packing, '_digest', lambda *what: digest(*what) + f'{next(count) == 4}')
    with pytest.raises(ValueError, match='read back from the disk differs from what was written'):
        packing.write_tar_shard(shard)
    assert not shard.path.exists()


def test_wrong_input_is_refused(
    tool: Callable[..., tuple[int, str]], source: Path, tmp_path: Path
) -> None:
    assert tool(*WORDS)[0] == 3
    out = tmp_path / 'out'

    def refused(*words: object) -> str:
        code, output = tool(*words)
        assert code == 1
        return output

    assert 'out has tar shards of another list, or of another --shard-size' in refused(
        *WORDS[:3], '--shard-size', '1'
    )
    assert 'the video folder elsewhere does not exist' in refused('list.txt', 'elsewhere', 'new')
    (tmp_path / 'empty').mkdir()
    assert 'none of the 32 listed videos is in empty' in refused('list.txt', 'empty', 'new')
    (tmp_path / 'names.txt').write_text('a b.mp4\tone\n')
    assert "'a b.mp4\\tone' has a label that is not a whole number" in refused(
        'names.txt', 'videos', 'new'
    )
    (tmp_path / 'none.txt').write_text('\n')
    assert 'none.txt lists no video' in refused('none.txt', 'videos', 'new')
    shard = out / 'shard-000002.tar'
    content = shard.read_bytes()
    broken = content[:3000], b'', bytes(5000), content[512:], content[:-10240], b'no tar' * 999
    other_list = content.replace(b'"some class/', b'"some klass/')
    for damaged in (*broken, other_list):
        shard.write_bytes(damaged)
        assert 'shard-000002.tar is damaged, or not of this list; remove it' in refused(*WORDS)
    (out / 'plan.json').write_text(json.dumps({'list': 'another'}))
    assert 'out has tar shards of another list' in refused(*WORDS)
    (out / 'plan.json').unlink()
    assert 'out has tar shards and no plan.json' in refused(*WORDS)
    assert not (tmp_path / 'new').exists()


def test_a_list_that_is_missing_is_an_error_that_names_it(
    tool: Callable[..., tuple[int, str]],
) -> None:
    code, output = tool('nolist.txt', 'videos', 'out')
    assert code == 1
    assert 'nolist.txt does not exist' in output
    assert output.rstrip().endswith('correct LIST')
