"""Hostile file 6: what FFmpeg opens is decided by the container, and nothing else is ever opened.

A file that names other files (a playlist, a list, a script) is next to a real video. It must be
refused, and the system must not have been asked for that video.
"""

import ast
import ctypes
import os
import re
import select
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import mmtimesformer
from mmtimesformer.datasets.preparation.checking import check_video
from mmtimesformer.datasets.preparation.resizing import Resize, resize_video
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_dataset import VideoDataset
from mmtimesformer.datasets.video_io.safe_open import CONTAINERS, check_file, kind_of, open_demuxer
from mmtimesformer.inference.inputs import error_message

ROOT = Path(__file__).resolve().parents[2]
SECRET = 'secret.ts'
HLS = b'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nsecret.ts\n#EXT-X-ENDLIST\n'
DASH = (
    b'<?xml version="1.0"?>\n%s<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" '
    b'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet>'
    b'<Representation><BaseURL>secret.ts</BaseURL></Representation></AdaptationSet></Period></MPD>'
)
SDP = b'o=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n'
ID3 = b'ID3\3\0\0\0\0\0\x0a' + bytes(10)

# Each once as text, and once with a control byte, which passed for no text.
NAMING_OTHERS: dict[str, bytes] = {
    'playlist.m3u8': HLS,
    'playlist_with_a_control_byte.m3u8': HLS.replace(b'\n', b'\n#\1\n', 1),
    'playlist.mp4': HLS,
    'playlist_behind_id3.m3u8': ID3 + HLS,
    'list.ffconcat': b"ffconcat version 1.0\nfile 'secret.ts'\n",
    'list_with_a_control_byte.mp4': b"ffconcat version 1.0\n#\1\nfile 'secret.ts'\n",
    'manifest.mpd': DASH % b'',
    'manifest_with_a_control_byte.mpd': DASH % b'\1',
    'session.sdp': b'v=0\n' + SDP,
    'session_with_a_control_byte.sdp': b'v=0\n\1\n' + SDP,
    'session_behind_a_control_byte.mp4': b'\1v=0\n' + SDP,
    'index.idx': b'# VobSub index file, v7\n\1\ntimestamp: 00:00:01:101, filepos: 000000000\n',
    'list.asx': b'<asx version="3.0">\1<entry><ref href="secret.ts"/></entry></asx>',
    'stream.rtsp': b'rtsptext\1\nrtsp://127.0.0.1/secret.ts\n',
    'drawing.svg': b'<svg xmlns="http://www.w3.org/2000/svg">\1<image href="secret.ts"/></svg>',
    'package.xml': b'<?xml version="1.0"?>\1<CompositionPlaylist/>',
}
DRAWN = {  # by FFmpeg from text: subtitles, a terminal
    'terminal.ans': b'\x1b[31mhello\x1b[0m\n' * 50,
    'text.txt': b'hello \1 world\n' * 50,
    'subtitles.ass': b'[Script Info]\n\1\n[Events]\nDialogue: 0,0:00:00.00,0:00:05.00,,hello\n',
    'subtitles.srt': b'1\n00:00:01,000 --> 00:00:02,000\nhello\1\n',
    'subtitles.sub': b'{1}{25}hello\1\n{26}{50}hello\n' * 3,
    'metadata.txt': b';FFMETADATA1\n\1title=hello\n',
}


def encode(path: Path, format: str | None = None, frames: int = 12, codec: str = 'libx264') -> Path:
    with av.open(str(path), 'w', format=format) as output:
        stream: Any = output.add_stream(codec, rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = {'gif': 'rgb8', 'png': 'rgb24'}.get(codec, 'yuv420p')
        stream.codec_context.time_base = Fraction(1, 25)
        for i in range(frames):
            picture = np.full((48, 64, 3), 20 * (i % 12), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format='rgb24')
            frame.pts, frame.time_base = i, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a real video that must not be opened."""
    encode(tmp_path / SECRET, frames=50)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def was_opened(folder: Path) -> Callable[[], bool]:
    """Whether anybody has opened the secret video since the test began (Linux's inotify)."""
    if sys.platform != 'linux':
        pytest.skip('inotify is of Linux')
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init()
    assert libc.inotify_add_watch(descriptor, os.fsencode(folder / SECRET), 0x20) > 0  # IN_OPEN

    def look() -> bool:
        ready, _, _ = select.select([descriptor], [], [], 0)
        return bool(ready and os.read(descriptor, 4096))

    (folder / SECRET).open('rb').close()
    assert look(), 'the watch works'
    return look


@pytest.mark.parametrize('name', {**NAMING_OTHERS, **DRAWN})
def test_what_names_other_files_is_refused_and_opens_none(
    folder: Path, was_opened: Callable[[], bool], name: str
) -> None:
    path = folder / name
    path.write_bytes({**NAMING_OTHERS, **DRAWN}[name])
    for reader in ('auto', 'pyav', 'decord'):
        with pytest.raises(ValueError, match=re.escape(name)) as error:
            Video(path.name, reader)
        assert SECRET not in str(error.value), 'nothing of the content is quoted'
        assert 'hello' not in str(error.value)
    for attempt in (
        lambda: open_demuxer(path),
        lambda: check_video(str(path)),
        lambda: resize_video(Resize(path, folder / 'new.mp4', folder / 'part', 24, 18, None)),
        lambda: resize_video(
            Resize(path, folder / 'new.mp4', folder / 'part', 24, 18, shutil.which('ffmpeg'))
        ),
    ):
        with pytest.raises((ValueError, av.FFmpegError)):
            attempt()
    error_message(ValueError('Invalid data found'), path, name)  # which looks for sound
    assert not was_opened()
    assert not (folder / 'new.mp4').exists()


def test_a_playlist_in_front_of_a_real_stream_is_refused(
    folder: Path, was_opened: Callable[[], bool]
) -> None:
    """PyAV takes it for the stream, and decord's older FFmpeg for the playlist."""
    stream = encode(folder / 'other.ts').read_bytes()
    (folder / 'both.ts').write_bytes(HLS + stream)
    was_opened()
    for reader in ('auto', 'decord'):
        with pytest.raises(ValueError, match=r'it is text \(a playlist'):
            Video('both.ts', reader)
    assert not was_opened()


def test_an_mp4_that_refers_to_pictures_in_another_file_opens_none(
    folder: Path, was_opened: Callable[[], bool]
) -> None:
    content = encode(folder / 'own.mp4').read_bytes()
    start = content.index(b'dref') + 12  # of the entry: size, 'url ', flags 1 (in this file)
    alias = b'file://' + os.fsencode(folder / SECRET) + b'\0'
    entry = (12 + len(alias)).to_bytes(4, 'big') + b'url \0\0\0\0' + alias
    changed = bytearray(content[:start] + entry + content[start + 12 :])
    for box in (b'dref', b'dinf', b'minf', b'mdia', b'trak', b'moov'):
        at = changed.index(box) - 4
        size = int.from_bytes(changed[at : at + 4], 'big') + len(entry) - 12
        changed[at : at + 4] = size.to_bytes(4, 'big')
    (folder / 'refers.mp4').write_bytes(changed)
    was_opened()
    try:
        Video('refers.mp4').frames([0])
    except ValueError:
        pass
    assert not was_opened()


@pytest.mark.parametrize(
    'name',
    ['concat:secret.ts|secret.ts', 'a:b.mp4', '-i', '-y.mp4', 'file:x.mp4', 'pipe:0', 'a b\n.mp4',
     '100%.mp4', '%d.mp4', '*.mp4', 'subfile,,start,0,end,0,,:secret.ts', 'ünïcode.mp4'],
)  # fmt: skip
def test_a_name_is_only_a_name(folder: Path, was_opened: Callable[[], bool], name: str) -> None:
    """For all readers, and for the program ffmpeg, which takes it as an argument."""
    (folder / name).write_bytes(encode(folder / 'plain.mp4').read_bytes())
    assert len(Video(name)) == 12
    for program in {shutil.which('ffmpeg'), None}:
        resize_video(Resize(Path(name), Path('new.mp4'), folder / 'part', 24, 18, program))
        assert len(Video('new.mp4')) == 12
    assert not was_opened()


def test_a_name_like_a_pattern_is_one_file_for_decord(folder: Path) -> None:
    pytest.importorskip('decord')
    encode(folder / '%03d.mp4')
    with pytest.raises(ValueError, match='decord takes its name for a pattern; set reader to pyav'):
        Video('%03d.mp4', 'decord')


def test_a_gif_whose_name_is_a_pattern_of_pictures_is_read(folder: Path) -> None:
    """By the name alone, FFmpeg takes it for a sequence of pictures in other files."""
    encode(folder / 'spin%03d.gif', codec='gif')
    encode(folder / 'spin001.gif', codec='gif', frames=2)
    assert len(Video('spin%03d.gif')) == 12


def test_a_sequence_of_pictures_is_refused(folder: Path) -> None:
    for i in range(3):
        encode(folder / f'{i}.png', 'image2', frames=1, codec='png')
    shutil.copy(folder / '0.png', folder / '%d.png')
    for name in ('%d.png', '0.png'):
        with pytest.raises(ValueError, match=r'it is a picture \(PNG\)'):
            Video(name)
        with pytest.raises(ValueError, match='its container is not that of a video file'):
            open_demuxer(folder / name)


def test_the_containers_are_those_of_videos() -> None:
    known = {name for formats in av.formats_available for name in formats.split(',')}
    refused = ['hls', 'dash', 'concat', 'sdp', 'image2', 'tty', 'lavfi', 'rtsp', 'mlv', 'vobsub']
    refused += ['subviewer', 'ffmetadata', 'webm_dash_manifest', 'png_pipe', 'srt', 'imf']
    assert {'mov', 'matroska', 'avi', 'mpegts', 'gif', 'ogg', 'flv', 'asf', 'mxf'} <= {*CONTAINERS}
    assert not {*refused} & {*CONTAINERS}
    assert len({*CONTAINERS} & known) > 30


def opens_videos(path: Path) -> bool:
    """Whether a source file calls what opens a video to read it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        name = f'{getattr(node.func.value, "id", "")}.{node.func.attr}'
        if name == 'av.open' and 'w' not in [getattr(arg, 'value', '') for arg in node.args[1:2]]:
            return True
        if node.func.attr in ('VideoReader', 'VideoCapture', 'AudioReader'):
            return True
    return False


def test_files_are_opened_in_one_place_alone() -> None:
    """Every other call of PyAV writes; other libraries are called where their files are checked."""
    package = Path(mmtimesformer.__file__).parent
    found = {
        path.relative_to(package.parent).as_posix()
        for folder in (package, ROOT / 'tools')
        for path in folder.rglob('*.py')
        if opens_videos(path)
    }
    assert found == {
        'mmtimesformer/datasets/video_io/safe_open.py',
        'mmtimesformer/datasets/video_io/checked_readers.py',
    }


def test_the_program_ffmpeg_is_given_the_container_and_one_protocol(tmp_path: Path) -> None:
    source = encode(tmp_path / 'source.mkv')
    ready = encode(tmp_path / 'ready.mp4')
    program = tmp_path / 'ffmpeg'
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/command\nfor last; do :; done\ncp {ready} "$last"\n'
    )
    program.chmod(0o755)
    resize_video(Resize(source, tmp_path / 'new.mp4', tmp_path / 'part', 24, 18, str(program)))
    command = (tmp_path / 'command').read_text()
    options, _, _ = command.partition(' -i ')
    assert '-protocol_whitelist file' in options
    assert '-format_whitelist matroska,webm -f matroska' in options
    assert f' -i file:{source} ' in command


@pytest.mark.parametrize('opener', ['DecordInit', 'PyAVInit', 'OpenCVInit'])
def test_readers_of_mmaction2_get_no_playlist(
    folder: Path, was_opened: Callable[[], bool], opener: str
) -> None:
    """In our data set they open only what our reader would."""
    (folder / 'bad.ts').write_bytes(NAMING_OTHERS['playlist_with_a_control_byte.m3u8'])
    encode(folder / 'good.mp4')
    (folder / 'list.txt').write_text('bad.ts 0\ngood.mp4 0\n')
    taken = []

    def open_it(results: dict[str, Any]) -> dict[str, Any]:
        taken.append(Path(results['filename']).name)
        return results

    dataset = VideoDataset('list.txt', [], {'video': str(folder)}, test_mode=True)
    step = type(opener, (), {'__call__': lambda self, results: open_it(results)})()
    dataset.pipeline.transforms = [step]
    info = dataset.get_data_info(1)
    assert dataset.load(info) is not None
    with pytest.raises(ValueError, match=r'bad\.ts .* cannot be read: it is text \(a playlist'):
        dataset.load(dataset.get_data_info(0))
    assert taken == ['good.mp4']
    assert not was_opened()


@pytest.mark.parametrize(
    ('content', 'kind'),
    [
        (b'<!DOCTYPE html><html>my secret</html>', 'text (an HTML page)'),
        (b'\xef\xbb\xbf  <html>', 'text (an HTML page)'),
        (b'{"password": "x"}', 'text (JSON)'),
        (b'<?xml version="1.0"?><Error/>', 'text (XML)'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
         'text (a Git LFS pointer; git lfs pull fetches the file)'),
        (b'my secret', 'text'),
        (b'YUV4MPEG2 W16 H16 F25:1', ''),
        (bytes(8) + b'ftyp', ''),
    ],
)  # fmt: skip
def test_a_message_says_what_a_file_is_and_quotes_nothing(
    tmp_path: Path, content: bytes, kind: str
) -> None:
    assert kind_of(content) == kind
    if kind:
        path = tmp_path / 'x.mp4'
        path.write_bytes(content)
        with pytest.raises(ValueError) as error:
            check_file(path)
        assert f'cannot be read: it is {kind}; ' in str(error.value)
        assert 'secret' not in str(error.value)
        assert 'password' not in str(error.value)
