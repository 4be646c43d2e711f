"""Annotation files are read strictly: another format is one sentence."""

from pathlib import Path

import numpy as np
import pytest

from mmtimesformer.probing.lists import names_of_classes, read_list


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / 'train.txt'
    path.write_text(text)
    return path


def test_a_list_is_a_video_and_its_class_in_each_line(tmp_path: Path) -> None:
    one = read_list(write(tmp_path, 'a/1.mp4 0\n\nb.mp4 2\n'), '', False, 'train_list')
    assert one.files == [tmp_path / 'a/1.mp4', tmp_path / 'b.mp4']
    assert one.targets(3).tolist() == [0, 2]
    assert one.lines() == ['a/1.mp4 0', 'b.mp4 2']


def test_a_tab_splits_names_with_spaces_and_several_labels_are_rows(tmp_path: Path) -> None:
    path = write(tmp_path, 'a b.mp4\t2\t0\nc.mp4\n')
    one = read_list(path, '/videos', True, 'train_list')
    assert one.files[0] == Path('/videos/a b.mp4') and one.delimiter == '\t'
    assert np.array_equal(one.targets(3), [[True, False, True], [False] * 3])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('path,label\na.mp4,wave\n', 'line 1: .* is not a video and its class index'),
        ('a.mp4 wave\n', 'is not a video and its class index'),
        ('a.mp4 -1\n', 'is not a video and its class index'),
        ('a.mp4\n', 'is not a video and its class index'),
        ('my video.mp4 0\n', 'names with spaces: split by a tab'),
        ('a.mp4 0 1\n', 'has 2 labels; set multi_label'),
        ('a.mp4 0\na.mp4 1\n', 'lists a.mp4 2 times'),
        ('', 'lists no video'),
    ],
)
def test_another_format_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_list(write(tmp_path, text), '', False, 'train_list')


def test_names_are_those_given_else_of_the_file_beside_the_list(tmp_path: Path) -> None:
    one = read_list(write(tmp_path, 'a.mp4 0\nb.mp4 1\n'), '', False, 'train_list')
    assert names_of_classes(None, [one]) == ['0', '1']
    (tmp_path / 'classes.txt').write_text('wave\nclap\n')
    assert names_of_classes(None, [one]) == ['wave', 'clap']
    assert names_of_classes(['x', 'y', 'z'], [one]) == ['x', 'y', 'z']
    with pytest.raises(ValueError, match='class_names has 1 names, and the lists have labels up'):
        names_of_classes(['x'], [one])
