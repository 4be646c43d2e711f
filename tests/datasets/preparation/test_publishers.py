"""What publishers hand out is read as it is; splits stay; a crash or a hang costs one file."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from mmtimesformer.datasets.preparation.annotations import prepare
from mmtimesformer.datasets.preparation.checking import list_videos, name_in
from mmtimesformer.datasets.preparation.finding import VideoFolder
from mmtimesformer.datasets.preparation.isolation import call_isolated
from mmtimesformer.datasets.preparation.listing import DataSet, Listed, Published, Split
from mmtimesformer.datasets.preparation.own_data import read_own_data, split_by_class
from mmtimesformer.datasets.preparation.publishers import read_kinetics, read_ssv2, read_ucf101
from mmtimesformer.datasets.preparation.reading import read_rows


def touch(folder: Path, *names: str) -> Path:
    """Make files that look like videos to whoever does not decode them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'\0')
    return folder


# -- splits ----------------------------------------------------------------------------------------

LABELS = {
    f'{name}{i}': name for name, count in (('a', 50), ('b', 10), ('c', 1)) for i in range(count)
}


def test_each_class_is_divided_by_the_same_fractions() -> None:
    splits = split_by_class(LABELS, {'val': 0.2, 'test': 0.1}, seed=0)
    counts = {
        split: [sum(LABELS[video] == name for video in videos) for name in 'abc']
        for split, videos in splits.items()
    }
    assert counts == {'train': [35, 7, 1], 'val': [10, 2, 0], 'test': [5, 1, 0]}
    assert sorted(video for videos in splits.values() for video in videos) == sorted(LABELS)


def test_a_split_is_the_same_on_every_run_and_another_with_another_seed() -> None:
    first = split_by_class(LABELS, {'val': 0.2}, seed=0)
    assert split_by_class(dict(reversed(LABELS.items())), {'val': 0.2}, seed=0) == first
    assert split_by_class(LABELS, {'val': 0.2}, seed=1) != first
    assert first['val'][:3] == ['a1', 'a11', 'a20']  # of today's Python, kept for ever


def test_a_new_class_moves_no_video_of_the_others() -> None:
    first = split_by_class(LABELS, {'val': 0.2}, seed=0)['val']
    more = split_by_class({**LABELS, 'aa1': 'aa', 'aa2': 'aa'}, {'val': 0.2}, seed=0)['val']
    assert [video for video in more if not video.startswith('aa')] == first


@pytest.mark.parametrize('fractions', [{'val': 0.0}, {'val': 1.0}, {'val': 0.5, 'test': 0.5}])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions) -> None:
    with pytest.raises(ValueError, match='leave something to train on'):
        split_by_class(LABELS, fractions, 0)


def test_the_split_that_folders_give_is_kept(tmp_path) -> None:
    touch(tmp_path, *(f'{s}/{c}/{i}.mp4' for s in ('train', 'val') for c in 'xy' for i in range(3)))
    data = read_own_data(tmp_path)
    assert {name: len(split.videos) for name, split in data.splits.items()} == {
        'train': 6,
        'val': 6,
    }
    assert data.classes == ['x', 'y']
    with pytest.raises(ValueError, match='split val is given by your data; leave --val out'):
        read_own_data(tmp_path, fractions={'val': 0.5})


def test_numbers_as_class_names_keep_their_order(tmp_path) -> None:
    touch(tmp_path, *(f'{label}/a.mp4' for label in (0, 2, 10)))
    assert read_own_data(tmp_path).classes == ['0', '2', '10']


def test_a_video_beside_the_class_folders_is_named(tmp_path) -> None:
    touch(tmp_path, 'a/1.mp4', 'lost.mp4')
    with pytest.raises(ValueError, match=r'lost\.mp4 lies in no class folder'):
        read_own_data(tmp_path)


# -- finding ---------------------------------------------------------------------------------------


def test_a_video_is_found_at_any_depth_by_name_or_folder(tmp_path) -> None:
    touch(tmp_path, 'a/b/one.MP4', 'wave/clip.avi', 'walk/clip.avi', '.one.mp4.x.part', 'notes.txt')
    folder = VideoFolder(tmp_path)
    assert sorted(folder.files) == ['a/b/one.MP4', 'walk/clip.avi', 'wave/clip.avi']
    assert folder.find(Listed(('one',), 0)) == 'a/b/one.MP4'
    assert folder.find(Listed(('wave/clip', 'clip'), 0)) == 'wave/clip.avi'
    assert folder.find(Listed(('ONE',), 0)) is None
    assert VideoFolder(tmp_path, ignore_case=True).find(Listed(('ONE',), 0)) == 'a/b/one.MP4'


def test_links_are_followed_and_a_circle_of_links_ends(tmp_path) -> None:
    touch(tmp_path / 'elsewhere', 'one.mp4')
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos' / 'linked').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'videos')
    (tmp_path / 'videos' / 'gone.mp4').symlink_to(tmp_path / 'nowhere.mp4')
    assert list(VideoFolder(tmp_path / 'videos').files) == ['linked/one.mp4']


def test_an_empty_file_gives_way_to_one_with_content(tmp_path) -> None:
    touch(tmp_path, 'b/one.mp4')
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'one.mp4').touch()
    assert VideoFolder(tmp_path).find(Listed(('one',), 0)) == 'b/one.mp4'


# -- writing ---------------------------------------------------------------------------------------


def _data_set(folder: Path, *names: str, published: Published | None = None) -> DataSet:
    videos = [Listed((name,), 0) for name in names]
    return DataSet('toy', ['x'], {'train': Split('train.txt', folder, videos, published=published)})


@pytest.mark.parametrize('name', ['tab\there.mp4', 'line\nbreak.mp4', ' first.mp4'])
def test_a_name_that_no_annotation_file_can_hold_is_refused(tmp_path, name) -> None:
    touch(tmp_path / 'videos', name)
    with pytest.raises(ValueError, match='an annotation file cannot hold it; rename the file'):
        prepare(_data_set(tmp_path / 'videos', name), tmp_path)
    assert not (tmp_path / 'train.txt').exists()


def test_a_rounded_figure_forgives_two_per_cent(tmp_path) -> None:
    touch(tmp_path / 'videos', 'a.mp4')
    for size, about, code in ((1, False, 0), (2, False, 3), (1, True, 0)):
        data = _data_set(tmp_path / 'videos', 'a', published=Published(size, 'here', about))
        assert prepare(data, tmp_path) == code
    assert Published(10_000, '', True).agrees_with(9_801)
    assert not Published(10_000, '', True).agrees_with(9_799)


# -- lists -----------------------------------------------------------------------------------------


def test_lists_that_are_not_what_was_published_are_refused_in_words(tmp_path) -> None:
    folders = dict.fromkeys(('train', 'val', 'test'), tmp_path)
    with pytest.raises(FileNotFoundError, match=r'no train\.csv in .* set --annotations'):
        read_kinetics('400', tmp_path, folders)
    (tmp_path / 'train.csv').write_text('name,id\nwave,abc\n')
    with pytest.raises(ValueError, match=r"no column 'youtube_id' \(it has name, id\)"):
        read_kinetics('400', tmp_path, folders)
    (tmp_path / 'train.csv').write_text('label,youtube_id,time_start,time_end\nwave,abc,one,2\n')
    with pytest.raises(ValueError, match="video abc has the times 'one' to '2'"):
        read_kinetics('400', tmp_path, folders)
    (tmp_path / 'labels.json').write_text('{"Holding something": "1"}')
    for name in ('train', 'validation'):
        (tmp_path / f'{name}.json').write_text('[]')
    with pytest.raises(ValueError, match=r'the labels are not 0\.\.0, each once'):
        read_ssv2(tmp_path, tmp_path)
    (tmp_path / 'labels.json').write_text('{"Holding something"')
    with pytest.raises(ValueError, match=r'labels\.json is not complete JSON'):
        read_ssv2(tmp_path, tmp_path)
    (tmp_path / 'labels.json').write_text('{"Holding something": "0"}')
    (tmp_path / 'train.json').write_text(json.dumps([{'id': '7', 'template': 'Dropping [it]'}]))
    with pytest.raises(ValueError, match="has the class 'Dropping it'"):
        read_ssv2(tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError, match=r'classInd\.txt does not exist'):
        read_ucf101(tmp_path, tmp_path)


@pytest.mark.parametrize(
    'text',
    [
        'a b.mp4 0\nc.mp4 1\n',
        'a b.mp4,0\nc.mp4,1\n',
        'a b.mp4\t0\nc.mp4\t1\n',
        'path,label\n"a b.mp4",0\nc.mp4,1',
    ],
)
def test_lists_may_be_split_by_tabs_commas_or_spaces(tmp_path, text) -> None:
    (tmp_path / 'list').write_text(text)
    assert read_rows(tmp_path / 'list', (2,)) == [['a b.mp4', '0'], ['c.mp4', '1']]


def test_the_names_in_an_annotation_file_are_read_as_videodataset_reads_them(tmp_path) -> None:
    (tmp_path / 'list.txt').write_text('a.mp4 0\nb c.mp4\t1\nd.mp4\na.mp4 1\n')
    assert list_videos(tmp_path / 'list.txt') == (tmp_path, ['a.mp4', 'b c.mp4', 'd.mp4'])


@pytest.mark.parametrize(
    ('line', 'name'),
    [
        ('a.mp4 1 2', 'a.mp4'),
        ('a b.mp4 -1', 'a b.mp4'),
        ('v1.5 cut 3.mp4 12 0 7', 'v1.5 cut 3.mp4'),
        ('clip 1 0', 'clip 1'),
        ('clip', 'clip'),
        ('a 2.mp4', 'a 2.mp4'),
        ('folder.1/clip 1 0', 'folder.1/clip 1'),
        ('a b.mp4 2\t1 2', 'a b.mp4 2'),
    ],
)
def test_a_line_may_have_several_labels(line: str, name: str) -> None:
    assert name_in(line) == name


# -- isolation -------------------------------------------------------------------------------------


def test_a_call_that_raises_costs_its_item_alone(tmp_path) -> None:
    touch(tmp_path, 'a', 'b')
    items = [str(tmp_path / name) for name in ('a', 'none', 'b')]
    results = {
        item: (value, wrong) for item, value, wrong in call_isolated(os.path.getsize, items, 2, 60)
    }
    assert results[items[0]] == results[items[2]] == (1, None)
    assert 'No such file' in results[items[1]][1]


def test_a_call_that_kills_its_process_costs_its_item_alone() -> None:
    items = [signal.SIGSEGV, 0, signal.SIGKILL]  # 0 is no signal
    # Process 0 is the group of whoever calls, and a worker has a group of its own.
    results = {item: wrong for item, _, wrong in call_isolated(partial(os.kill, 0), items, 1, 60)}
    assert results == {
        signal.SIGSEGV: 'the process that read it crashed (signal SIGSEGV)',
        0: None,
        signal.SIGKILL: 'the process that read it crashed (signal SIGKILL)',
    }


def test_a_call_that_hangs_is_ended_and_the_others_go_on() -> None:
    begin = time.monotonic()
    results = {item: wrong for item, _, wrong in call_isolated(time.sleep, [60, 0, 0.01], 2, 0.5)}
    assert results == {60: 'no answer in 0.5 seconds', 0: None, 0.01: None}
    assert time.monotonic() - begin < 30
