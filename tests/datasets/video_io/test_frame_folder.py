"""A folder of JPG or PNG frames is one video, and gives the frame that is asked for or an error."""

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmtimesformer.datasets.preparation.checking import check_video, list_videos
from mmtimesformer.datasets.preparation.finding import SkippedFiles, VideoFolder, walk_videos
from mmtimesformer.datasets.preparation.listing import Listed
from mmtimesformer.datasets.transforms.decoding import Video
from mmtimesformer.datasets.video_io.errors import MissingVideo, UnreadableVideo
from mmtimesformer.datasets.video_io.frame_folder import (
    FrameNames,
    NumberedNames,
    compress,
    is_frame_folder,
    pack_frames,
)
from mmtimesformer.datasets.video_io.image_file import decode_image

H, W = 13, 17


def picture(i: int, height: int = H, width: int = W) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 255, (height, width, 3), np.uint8)


def encoded(rgb: np.ndarray, ending: str, *options: int) -> bytes:
    return cv2.imencode(f'.{ending}', rgb[..., ::-1], options)[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[Sequence[str]], Path]:
    """Write frames under these names: the i-th name is picture i."""

    def write(names: Sequence[str]) -> Path:
        path = tmp_path / 'clip'
        path.mkdir()
        for i, name in enumerate(names):
            ending = name.rpartition('.')[2].lower()
            (path / name).write_bytes(encoded(picture(i), ending))
        return path

    return write


@pytest.mark.parametrize(
    'names',
    [
        [f'{i}.png' for i in range(12)],
        [f'{i}.png' for i in range(1, 13)],
        [f'{i:06d}.PNG' for i in range(1, 12)],
        [f'img_{i:05}.png' for i in range(3)],
        [f'v2-take3_frame{i}_224x224.png' for i in range(9, 9)] or ['a3_0_8x8.png', 'a3_1_8x8.png'],
        ['photo.png'],
        ['clip_00.png'],
    ],
)
def test_frames_are_in_the_order_of_their_numbers(
    folder: Callable[[Sequence[str]], Path], names: list[str]
) -> None:
    video = Video(folder(names))
    assert len(video) == len(names)
    assert (video.fps, video.fps_is_assumed) == (30, True)
    for i, frame in enumerate(video.frames(range(len(names)))):
        assert np.array_equal(frame, picture(i))
    last = len(names) - 1
    one, other, third = video.frames([last, 0, last])
    assert np.array_equal(one, third) and np.array_equal(other, picture(0))
    assert not np.shares_memory(one, third)


def test_endings_may_be_mixed_and_other_files_are_ignored(
    folder: Callable[[Sequence[str]], Path],
) -> None:
    path = folder(['1.png', '2.jpg', '3.jpeg', '4.PNG'])
    for name in ('Thumbs.db', 'notes.txt', '.DS_Store', '._1.png', '.5.png'):
        (path / name).write_bytes(b'x')
    frames = Video(path).frames(range(4))
    assert np.array_equal(frames[3], picture(3))
    assert np.array_equal(frames[1][..., ::-1], cv2.imread(str(path / '2.jpg')))


def test_a_template_chooses_among_files(folder: Callable[[Sequence[str]], Path]) -> None:
    path = folder(['img_00007.png', 'img_00008.png', 'flow_x_00007.png', 'img_9.png', 'img_a.png'])
    names = FrameNames('img_{:05}.png', start=7, total=2)
    video = Video(path, frames=names)
    assert np.array_equal(video.frames([1])[0], picture(1))
    assert Video(path, frames=FrameNames('img_{:05d}.png', 7), fps=12).fps == 12
    with pytest.raises(UnreadableVideo, match='without a frame named as x_'):
        Video(path, frames=FrameNames('x_{}.png'))
    with pytest.raises(UnreadableVideo, match=r'frames are missing: 9 to 11 \(there are 7 to 8\)'):
        Video(path, frames=FrameNames('img_{:05}.png', 7, 5))
    with pytest.raises(UnreadableVideo, match='the list gives 1 frames, and there are 2'):
        Video(path, frames=FrameNames('img_{:05}.png', 7, 1))
    with pytest.raises(UnreadableVideo, match='a frame 7, and start_index=8 is the first'):
        Video(path, frames=FrameNames('img_{:05}.png', 8))
    for wrong in ('img.png', 'a{}/{:05}.png', '{}/1.png', '{:x}.png', '{name}.png'):
        with pytest.raises(ValueError, match=r'with one number, .*set filename_tmpl'):
            FrameNames(wrong)


@pytest.mark.parametrize(
    ('names', 'reason'),
    [
        (['0.png', '1.png', '3.png', '7.png'], r'frames are missing: 2, 4 to 6 \(there are 0 to 7'),
        ([f'{2 * i}.png' for i in range(9)], r'1, 3, 5, 7, 9 and 3 more gaps'),
        (['5.png', '6.png'], 'its first frame has the number 5, not 0 or 1'),
        (['1.png', '01.png', '2.png'], r'01.png and 1.png are both frame 1; remove one'),
        (['1.png', '1.jpg'], r'1.jpg and 1.png are both frame 1; remove one'),
        (['a1.png', 'b2.png'], 'differ in more than a number'),
        (['a.png', 'b.png'], 'differ in more than a number'),
        (['1_1.png', '2_2.png'], 'differ in several numbers'),
        (['1.png', '2.webp'], '2.webp is neither JPG nor PNG; convert or remove it'),
        ([], 'it is a folder without a JPG or PNG image'),
    ],
)
def test_an_order_that_is_not_certain_is_refused(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    path = tmp_path / 'clip'
    path.mkdir()
    for name in names:
        (path / name).write_bytes(encoded(picture(0), 'png'))
    with pytest.raises(UnreadableVideo, match=reason) as error:
        Video(path)
    assert str(error.value).startswith(f'the video {path} cannot be read: ')
    with pytest.raises(ValueError, match=reason):
        check_video(str(path))


def test_images_among_videos_or_folders_are_no_video(
    folder: Callable[[Sequence[str]], Path],
) -> None:
    path = folder(['0.png', '1.png'])
    assert is_frame_folder(path)
    (path / 'deeper').mkdir()
    assert not is_frame_folder(path)
    with pytest.raises(UnreadableVideo, match=r'images and of other videos or folders \(deeper\)'):
        Video(path)
    (path / 'deeper').rename(path / '.hidden')
    assert is_frame_folder(path)
    (path / 'a.mp4').touch()
    assert not is_frame_folder(path)
    assert not is_frame_folder(path / '0.png') and not is_frame_folder(path / 'nothing')
    with pytest.raises(MissingVideo):
        Video(path / 'nothing', frames=FrameNames('{}.png'))


# -- one image -------------------------------------------------------------------------------------

JPGS = {
    'baseline': (),
    'progressive': (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'restarts': (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    'best': (cv2.IMWRITE_JPEG_QUALITY, 100),
}


@pytest.mark.parametrize('options', JPGS.values(), ids=JPGS)
def test_a_jpg_is_read_as_opencv_reads_it_or_refused_where_it_is_cut(
    tmp_path: Path, options: tuple[int, ...]
) -> None:
    """OpenCV itself returns a picture for most beginnings of a file, grey below."""
    content = encoded(picture(3, 40, 33), 'jpg', *options)
    (tmp_path / 'a.jpg').write_bytes(content)
    expected = cv2.imread(str(tmp_path / 'a.jpg'))
    assert np.array_equal(decode_image(content)[..., ::-1], expected)
    assert np.array_equal(decode_image(content + b'more')[..., ::-1], expected)
    for end in range(len(content)):
        with pytest.raises(ValueError):
            decode_image(content[:end])


def smooth(encoding: str) -> bytes:
    """A picture with something to see, as JPG."""
    y, x = np.mgrid[:96, :128]
    noise = np.random.default_rng(0).normal(0, 12, (96, 128, 3))
    rgb = np.clip(np.stack([x, y * 2, x + y], -1) + noise, 0, 255).astype(np.uint8)
    options = {
        'plain': (),
        'progressive': (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        'restarts': (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    }[encoding]
    return encoded(rgb, 'jpg', *options)


@pytest.mark.parametrize(
    ('encoding', 'least'), [('plain', 40), ('progressive', 24), ('restarts', 38)]
)
def test_the_check_finds_most_damage_inside_a_jpg(
    folder: Callable[[Sequence[str]], Path], encoding: str, least: int,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Of 40 JPGs with 64 bytes of zeros: all, if progressive 26; a good one never."""
    path, good = folder(['0.jpg', '1.jpg']), smooth(encoding)
    for name in ('0.jpg', '1.jpg'):
        (path / name).write_bytes(good)
    assert check_video(str(path)) == 2
    padded = good[:-2] + bytes(7) + good[-2:]
    (path / '0.jpg').write_bytes(padded)
    assert check_video(str(path)) == check_video(str(path), quick=True) == 2, 'of a camera'
    found = 0
    begin = good.index(b'\xff\xda') + 14
    for at in np.linspace(begin, len(good) - 70, 40, dtype=int):
        (path / '1.jpg').write_bytes(good[:at] + bytes(64) + good[at + 64 :])
        try:
            check_video(str(path))
        except ValueError as error:
            found += 'its frame 1.jpg' in str(error)
    assert found >= least
    os.write(2, b'back')
    assert capfd.readouterr().err.endswith('back'), 'standard error is itself again'


def test_a_png_is_refused_where_it_is_cut_or_changed() -> None:
    content = encoded(picture(3), 'png')
    for at in range(len(content)):
        with pytest.raises(ValueError):
            decode_image(content[:at])
        changed = bytearray(content)
        changed[at] ^= 0x10
        with pytest.raises(ValueError):
            decode_image(bytes(changed))


def test_the_orientation_of_a_camera_is_applied_as_by_opencv(tmp_path: Path) -> None:
    content = encoded(picture(0), 'jpg')
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0'
    turned = content[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + content[2:]
    (tmp_path / 'a.jpg').write_bytes(turned)
    frame = decode_image(turned)
    assert frame.shape == (W, H, 3)
    assert np.array_equal(frame[..., ::-1], cv2.imread(str(tmp_path / 'a.jpg')))


def with_size(png: bytes, width: int, height: int) -> bytes:
    """Change the size in the header of a PNG, with its checksum."""
    import zlib

    head = b'IHDR' + width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + png[24:29]
    return png[:12] + head + zlib.crc32(head).to_bytes(4, 'big') + png[33:]


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'it is empty'),
        (b'<html>404</html>', 'it is text .an HTML page'),
        (b'\0' * 64, 'neither a JPG nor a PNG'),
        (b'GIF89a\0\0', 'neither a JPG nor a PNG'),
        (with_size(encoded(picture(0), 'png'), 60_000, 60_000), '60000 x 60000 pixels, more than'),
        (with_size(encoded(picture(0), 'png'), 5000, 10), '5000 x 10 pixels, and is too narrow'),
        (with_size(encoded(picture(0), 'png'), 0, 10), 'its header gives no size'),
    ],
)
def test_what_is_no_image_is_named(
    folder: Callable[[Sequence[str]], Path], content: bytes, reason: str
) -> None:
    path = folder(['0.png', '1.png', '2.png'])
    (path / '1.png').write_bytes(content)
    video = Video(path)
    assert len(video.frames([0, 2])) == 2
    with pytest.raises(UnreadableVideo, match=rf'its frame 1.png cannot be decoded: .*{reason}'):
        video.frames([0, 1])
    with pytest.raises(ValueError, match=reason):
        check_video(str(path))


def test_frames_of_different_sizes_are_refused(folder: Callable[[Sequence[str]], Path]) -> None:
    path = folder(['0.png', '1.png', '2.png'])
    (path / '2.png').write_bytes(encoded(picture(2, H + 1), 'png'))
    assert len(Video(path).frames([0, 1])) == 2
    with pytest.raises(UnreadableVideo, match='2.png has 17 x 14 pixels, another 17 x 13'):
        Video(path).frames([0, 1, 2])
    video = Video(path)
    video.frames([0])
    with pytest.raises(UnreadableVideo, match='different sizes'):
        video.frames([2])


def test_links_pipes_and_devices(folder: Callable[[Sequence[str]], Path], tmp_path: Path) -> None:
    path = folder(['0.png', '1.png'])
    (path / '1.png').rename(tmp_path / 'elsewhere.png')
    (path / '1.png').symlink_to(tmp_path / 'elsewhere.png')
    assert np.array_equal(Video(path).frames([1])[0], picture(1))
    for make, reason in (
        (lambda file: file.symlink_to('nothing.png'), 'its frame 1.png does not exist'),
        (lambda file: file.symlink_to('/dev/zero'), 'it is a device'),
        (os.mkfifo, 'it is a pipe'),
    ):
        (path / '1.png').unlink()
        make(path / '1.png')
        with pytest.raises(UnreadableVideo, match=reason):
            Video(path).frames([1])


# -- packed, listed --------------------------------------------------------------------------------


def test_a_tar_of_frames_is_read_like_its_folder(
    folder: Callable[[Sequence[str]], Path], tmp_path: Path
) -> None:
    path = folder(['1.png', '2.jpg', '3.png'])
    (tmp_path / 'a').write_bytes(pack_frames(path))
    assert pack_frames(path) == (tmp_path / 'a').read_bytes(), 'the same bytes each time'
    for one, other in zip(
        Video(tmp_path / 'a').frames(range(3)), Video(path).frames(range(3)), strict=True
    ):
        assert np.array_equal(one, other)


@pytest.mark.parametrize('kind', ['link', 'other', 'cut'])
def test_a_tar_of_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    content = encoded(picture(0), 'png')
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w', format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo('0.png')
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo('1.png' if kind == 'link' else '../x.py')
        if kind == 'link':
            info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
        if kind != 'cut':
            tar.addfile(info)
    path = tmp_path / 'a.mp4'
    path.write_bytes(packed.getvalue()[: 700 if kind == 'cut' else None])
    with pytest.raises(UnreadableVideo):
        Video(path).frames([0])


def test_a_walk_lists_folders_of_frames_as_videos(
    folder: Callable[[Sequence[str]], Path], tmp_path: Path
) -> None:
    path = folder(['0.png', '1.png'])
    shutil.copytree(path, tmp_path / 'wave' / 'v.1')
    (tmp_path / 'wave' / 'b.mp4').write_bytes(b'x')
    (tmp_path / 'cover.jpg').write_bytes(b'x')
    skipped = SkippedFiles()
    names = [name for name, _ in walk_videos(tmp_path, skipped)]
    assert names == ['clip', 'wave/b.mp4', 'wave/v.1']
    assert skipped.note() == '1 file with other endings was skipped: .jpg'
    assert [n for n, _ in walk_videos(tmp_path, frames=False)] == ['wave/b.mp4']
    found = VideoFolder(tmp_path)
    assert found.find(Listed(('v.1',), 0)) == 'wave/v.1'
    assert found.find(Listed(('b',), 0)) == 'wave/b.mp4'
    assert list_videos(path) == (tmp_path, ['clip'])


def test_names_take_no_memory_where_they_are_numbered() -> None:
    names = [f'a/1_{i:06}.jpg' for i in range(1, 50)]
    short = compress(names)
    assert isinstance(short, NumberedNames)
    assert (list(short), short[-1], short[1:3]) == (names, names[-1], names[1:3])
    with pytest.raises(IndexError):
        short[49]
    for odd in (['b.jpg'], ['1.jpg', '3.jpg'], ['08.jpg', '9.jpg'], ['1.jpg', '2.png']):
        assert list(compress(odd)) == odd
