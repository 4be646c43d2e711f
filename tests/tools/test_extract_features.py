"""tools/extract_features.py resumes, and reports files that it could not read."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmtimesformer import VideoClassifier

from .test_predict import Tool, checkpoint, tool, trained  # noqa: F401  (fixtures)


def test_features_of_an_annotation_file_are_those_of_python(
    tool: Tool, tiny_config: Path, checkpoint: Path, tiny_videos: Path  # noqa: F811
) -> None:  # fmt: skip
    source = tiny_videos / 'val.txt'
    code, out, _ = tool('extract_features', tiny_config, checkpoint, source, '--out', 'out')
    assert code == 0
    assert '3 videos: 3 done, 0 failed' in out
    clf = VideoClassifier(tiny_config, checkpoint)
    for i in (3, 4, 5):
        found = np.load(f'out/features/{i}.mp4.npy')
        assert np.allclose(found, clf.features(tiny_videos / f'{i}.mp4'), atol=1e-6)
    written = json.loads(Path('out/manifest.json').read_text())
    assert written['feature'] == 'cls' and written['shapes']['3.mp4'] == [3, 24]
    assert len(written['sha256']) == 64 and written['pipeline'][1]['clip_len'] == 4


def test_it_goes_on_where_it_was_and_tells_what_failed(
    tool: Tool, tiny_config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    folder = tmp_path / 'videos'
    folder.mkdir()
    (folder / 'a.mp4').write_bytes((tiny_videos / '0.mp4').read_bytes())
    (folder / 'b.mp4').write_bytes(b'')
    words = (tiny_config, checkpoint, folder, '--out', 'out', '--feature', 'frames', '--half')
    code, out, _ = tool('extract_features', *words)
    assert code == 3
    assert 'b.mp4: is an empty file' in out
    first = Path('out/features/a.mp4.npy')
    assert np.load(first).dtype == np.float16
    assert np.load(first).shape == (3, 4, 24)
    assert json.loads(Path('out/manifest.json').read_text())['failed'] == {
        'b.mp4': 'is an empty file'
    }
    written = first.stat().st_mtime_ns

    (folder / 'b.mp4').write_bytes((tiny_videos / '1.mp4').read_bytes())
    code, out, _ = tool('extract_features', *words)
    assert code == 0
    assert '1 of 2 are there already' in out
    assert first.stat().st_mtime_ns == written
    written = json.loads(Path('out/manifest.json').read_text())
    assert written['failed'] == {} and len(written['shapes']) == 2

    code, _, err = tool('extract_features', *words, '--layers', '-1')
    assert code == 1
    assert 'holds features with layers=None, now it is [-1]' in err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['nowhere.txt'], 'nowhere.txt is neither an annotation file nor a folder'),
        (['.', '--layers', '9'], 'there is no layer 9'),
        (['empty'], 'empty names no video'),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    tool: Tool, tiny_config: Path, checkpoint: Path, tiny_videos: Path,  # noqa: F811
    words: list[str], message: str,
) -> None:  # fmt: skip
    Path('empty').mkdir()
    Path('copy.mp4').write_bytes((tiny_videos / '0.mp4').read_bytes())
    code, _, err = tool('extract_features', tiny_config, checkpoint, *words, '--out', 'out')
    assert code == 1
    assert message in err
    assert not Path('out').exists()


def test_videos_that_lie_elsewhere_are_told_with_the_option(
    tool: Tool, tiny_config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    source = tmp_path / 'list.txt'
    source.write_text((tiny_videos / 'val.txt').read_text())
    words = (tiny_config, checkpoint, source, '--out', 'out')
    code, _, err = tool('extract_features', *words)
    assert code == 1
    assert 'none of the 3 videos' in err and 'set --root' in err
    assert tool('extract_features', *words, '--root', tiny_videos)[0] == 0
