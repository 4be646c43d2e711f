"""Atomic writing: a complete new file, or the previous one, also after a crash."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtimesformer.fileio.atomic import (
    PARTIAL_FILES,
    partial_path,
    rename_atomically,
    write_atomically,
    write_json_atomically,
    write_lines_atomically,
    write_text_atomically,
)


def rename(path: Path) -> None:
    partial = partial_path(path)
    partial.write_text('a')
    rename_atomically(partial, path)


WRITERS: dict[str, Callable[[Path], None]] = {
    'text': lambda path: write_text_atomically(path, 'a'),
    'lines': lambda path: write_lines_atomically(path, ['a']),
    'json': lambda path: write_json_atomically(path, {'a': 1}),
    'rename': rename,
}


@pytest.mark.parametrize('write', WRITERS.values(), ids=WRITERS)
@pytest.mark.skipif(not hasattr(os, 'O_DIRECTORY'), reason='this system syncs no folders')
def test_the_content_is_synced_before_the_rename_and_the_folder_after_it(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, calls = tmp_path / 'a.txt', []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(handle: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        same = os.path.samestat(os.fstat(handle), tmp_path.stat())
        calls.append('sync folder' if is_folder and same else 'sync file')
        if not is_folder:
            assert os.fstat(handle).st_size > 0
        fsync(handle)

    def recorded_replace(source: Path, target: Path) -> None:
        calls.append('rename')
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', recorded_fsync)
    monkeypatch.setattr(os, 'replace', recorded_replace)
    write(path)
    assert calls == ['sync file', 'rename', 'sync folder']
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize('write', WRITERS.values(), ids=WRITERS)
def test_a_file_whose_name_has_255_bytes_is_written(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / f'{"é" * 120}{"x" * 11}.mp4'
    write(path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / 'model.pth'
    path.write_bytes(b'before')
    with pytest.raises(RuntimeError), write_atomically(path) as file:
        file.write_bytes(b'half of wha')
        raise RuntimeError
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, '\udc80')
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_json_atomically(path, {'loss': float('nan')})
    assert path.read_bytes() == b'before'
    assert [one.name for one in tmp_path.iterdir()] == ['model.pth']


def test_a_process_killed_while_writing_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / 'model.pth'
    path.write_bytes(b'before')
    code = (
        'import os, signal\n'
        'from mmtimesformer.fileio.atomic import write_atomically\n'
        f'with write_atomically({str(path)!r}) as file:\n'
        '    file.write_bytes(b"half of wha")\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': str(root)}, check=False
    )
    assert done.returncode < 0
    assert path.read_bytes() == b'before'
    leftover = set(tmp_path.iterdir()) - {path}
    assert len(leftover) == 1 and leftover == set(tmp_path.glob(PARTIAL_FILES))


def test_a_new_file_has_the_permissions_of_the_umask_whatever_wrote_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with write_atomically(tmp_path / 'new' / 'a') as file:
            file.unlink()
            file.write_text('a')
            file.chmod(0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / 'new' / 'a').stat().st_mode) == 0o640


def test_a_symbolic_link_is_replaced_and_its_target_is_kept(tmp_path: Path) -> None:
    (tmp_path / 'target').write_text('before')
    (tmp_path / 'link').symlink_to('target')
    write_text_atomically(tmp_path / 'link', 'after')
    assert (tmp_path / 'target').read_text() == 'before'
    assert (tmp_path / 'link').read_text() == 'after' and not (tmp_path / 'link').is_symlink()


def test_lines_keep_file_names_that_are_not_utf_8(tmp_path: Path) -> None:
    write_lines_atomically(tmp_path / 'a', ['\udc80', 'é'], 'surrogateescape')
    assert (tmp_path / 'a').read_bytes() == b'\x80\n\xc3\xa9\n'
