import os
import unicodedata
from pathlib import Path

import pytest

from mmtimesformer.finetuning.video_list import Item, VideoList, read_video_list


def make(root: Path, *paths: str) -> Path:
    """Write files that only have to be there; listing opens none."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b'x')
    return root


def csv_of(folder: Path, text: str, encoding: str = 'utf-8') -> Path:
    make(folder, *(f'{name}.mp4' for name in 'abcd'))
    file = folder / 'labels.csv'
    file.write_bytes(text.encode(encoding))
    return file


def pairs(videos: VideoList) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.path, item.labels) for item in videos.items]


def test_a_folder_per_class_with_folders_in_it(tmp_path: Path) -> None:
    make(tmp_path, 'wave/1.mp4', 'clap hands/2.avi', 'clap hands/deep/3.MOV', 'wave/notes.txt')
    videos = read_video_list(tmp_path)
    assert pairs(videos) == [
        ('clap hands/2.avi', ('clap hands',)),
        ('clap hands/deep/3.MOV', ('clap hands',)),
        ('wave/1.mp4', ('wave',)),
    ]
    assert videos.classes == ['clap hands', 'wave']
    assert videos.notes == ['1 file with other endings was skipped: .txt']


def test_a_folder_of_images_is_one_video(tmp_path: Path) -> None:
    make(
        tmp_path, 'wave/1/img_1.jpg', 'wave/1/img_2.jpg', 'wave/2.mp4', 'wave/cover.png',
        'run/7/0001.PNG', 'run/poster.jpg', 'run/8/1.jpg', 'run/8/2.jpg', 'run/8/more/x.mp4',
    )  # fmt: skip
    videos = read_video_list(tmp_path)
    found = ['run/7', 'run/8/more/x.mp4', 'wave/1', 'wave/2.mp4']
    assert [item.path for item in videos.items] == found
    (left_out,) = videos.left_out
    assert (
        left_out[0] == 'run/8/'
        and 'its 2 images are no video, as it also holds more' in left_out[1]
    )


def test_folders_train_and_val_are_the_split(tmp_path: Path) -> None:
    make(tmp_path, 'train/a/1.mp4', 'train/b/2.mp4', 'Validation/a/3.mp4')
    (tmp_path / 'Validation').rename(tmp_path / 'validation')
    videos = read_video_list(tmp_path)
    assert [(i.path, i.labels, i.split) for i in videos.items] == [
        ('train/a/1.mp4', ('a',), 'train'),
        ('train/b/2.mp4', ('b',), 'train'),
        ('validation/a/3.mp4', ('a',), 'val'),
    ]


@pytest.mark.parametrize('delimiter', [',', '\t', ';'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_a_csv_of_any_delimiter_and_script(tmp_path: Path, delimiter: str, encoding: str) -> None:
    text = 'label,group,path,split\n挥手,g1,a.mp4,train\nпрыжок,g2,b.mp4,val\n挥手,g1,c.mp4,train\n'
    videos = read_video_list(csv_of(tmp_path, text.replace(',', delimiter), encoding))
    assert videos.items == [
        Item('a.mp4', ('挥手',), 'g1', 'train'),
        Item('b.mp4', ('прыжок',), 'g2', 'val'),
        Item('c.mp4', ('挥手',), 'g1', 'train'),
    ]
    assert not videos.multi_label


@pytest.mark.parametrize(
    ('row', 'group', 'split'),
    [('', '', ''), (',val', '', 'val'), (',person 3', 'person 3', ''), (',p3,test', 'p3', 'test')],
)
def test_a_csv_without_a_heading(tmp_path: Path, row: str, group: str, split: str) -> None:
    lines = [f'{name}.mp4,{label}{row}' for name, label in zip('abc', 'xxy', strict=True)]
    (item, *_) = read_video_list(csv_of(tmp_path, '\n'.join(lines))).items
    assert item == Item('a.mp4', ('x',), group, split)


def test_quoted_cells_and_windows_line_ends(tmp_path: Path) -> None:
    text = 'path,label\r\n"a.mp4","jump, high"\r\nb.mp4,run\r\nc.mp4,run\r\n\r\n'
    assert read_video_list(csv_of(tmp_path, text)).classes == ['jump, high', 'run']


def test_numbers_as_names_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    text = 'path,label\na.mp4,10\nb.mp4,9\nc.mp4,9\n'
    assert read_video_list(csv_of(tmp_path, text)).classes == ['9', '10']


def test_one_name_in_two_unicode_forms_is_one_class(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, 'café') for form in ('NFC', 'NFD')]
    text = f'path,label\na.mp4,{forms[0]}\nb.mp4,{forms[1]}\nc.mp4,bar\n'
    assert read_video_list(csv_of(tmp_path, text)).classes == ['bar', forms[0]]


def test_absolute_paths_and_a_root(tmp_path: Path) -> None:
    text = f'path,label\n{tmp_path}/a.mp4,x\nb.mp4,y\nc.mp4,y\n'
    file = csv_of(tmp_path, text)
    elsewhere = tmp_path / 'lists' / 'labels.csv'
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(file.read_bytes())
    videos = read_video_list(elsewhere, root=tmp_path)
    assert [item.path for item in videos.items] == ['a.mp4', 'b.mp4', 'c.mp4']


@pytest.mark.parametrize(('delimiter', 'separator'), [(',', ';'), (';', '|'), ('\t', ';')])
def test_a_cell_of_several_labels_makes_the_list_multi_label(
    tmp_path: Path, delimiter: str, separator: str
) -> None:
    text = f'path,label\na.mp4,y{separator} x\nb.mp4,x\nc.mp4,\n'.replace(',', delimiter)
    videos = read_video_list(csv_of(tmp_path, text))
    assert videos.multi_label and 'several labels a video' in videos.notes[0]
    assert pairs(videos) == [('a.mp4', ('x', 'y')), ('b.mp4', ('x',)), ('c.mp4', ())]


def test_a_separator_of_the_users_own_and_none(tmp_path: Path) -> None:
    file = csv_of(tmp_path, 'path,label\na.mp4,x+y\nb.mp4,x;z\nc.mp4,x;z\n')
    assert read_video_list(file, separator='+').classes == ['x', 'x;z', 'y']
    assert read_video_list(file, separator='').classes == ['x+y', 'x;z']


def test_lines_of_one_video_are_united_where_several_labels_are_allowed(tmp_path: Path) -> None:
    file = csv_of(tmp_path, 'path,label\na.mp4,x\na.mp4,y\nb.mp4,x\n')
    assert pairs(read_video_list(file, multi_label=True))[0] == ('a.mp4', ('x', 'y'))


def test_files_that_do_not_exist_are_left_out_with_the_reason(tmp_path: Path) -> None:
    text = 'path,label\na.mp4,x\nb.mp4,y\nc.mp4,y\ngone.mp4,y\n'
    videos = read_video_list(csv_of(tmp_path, text))
    assert len(videos.items) == 3 and videos.left_out == [('gone.mp4', 'does not exist')]


BAD = {
    'path,kind\na.mp4,x\n': r"has no column 'label' \(it has path, kind\); name the columns path",
    'label,clip\nx,a.mp4\n': "has no column 'path'",
    'path,label\na.mp4,x\nb.mp4,x\n': "the only class is 'x'; a classifier needs two classes",
    'path,label\na.mp4,x\nb.mp4,y\n': 'each of the 2 classes has one video',
    'path,label\nno.mp4,x\nnot.mp4,y\nnor.mp4,y\n': 'none of the 3 videos of .* exists, such as',
    'path,label\na.mp4,Wave\nb.mp4,wave\n': "'Wave' and 'wave' differ in upper and lower case",
    'path,label\na.mp4,0.37\nb.mp4,1.5\nc.mp4,0.2\n': r'the labels are numbers such as 0\.37',
    'path;label\na.mp4;0,37\nb.mp4;1,5\nc.mp4;1,5\n': 'the labels are numbers such as 0,37',
    'path,label\na.mp4,x\na.mp4,y\n': r"line 3: a.mp4 has the labels 'x' and 'y'.*--multi-label",
    'path,label\na.mp4,x\nb.mp4,\n': 'line 3 has no label',
    'path,label\na.mp4,x\n,y\n': 'line 3 has no path',
    'path,label\na.mp4,x\nb.mp4\n': 'line 3 has no label',
    'path,label,split\na.mp4,x,dev\n': "line 2: a.mp4 is of split 'dev'; write train, val or test",
    'path,video,label\na.mp4,a,x\n': 'has two columns for path: path and video',
    'clip,action\na.mp4,x\nb.mp4,y\n': 'the first line .clip, action. names no video; if it is a',
    'a.mp4\nb.mp4\n': "has no columns .its first line is 'a.mp4'.",
    'path,label\n': 'has no line below its heading',
    '': 'has no columns .it is empty.',
    'a.mp4,b,c,d,e\n': 'has 5 columns and no heading',
    'path,label,split\na.mp4,x,train\na.mp4,x,val\n': "of split 'train' and 'val'; correct one",
}


@pytest.mark.parametrize('text', BAD)
def test_bad_csv_files_get_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=BAD[text]):
        read_video_list(csv_of(tmp_path, text))


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-16-le', 'utf-32'])
def test_utf_16_is_refused(tmp_path: Path, encoding: str) -> None:
    file = csv_of(tmp_path, 'path,label\na.mp4,x\nb.mp4,y\n', encoding)
    with pytest.raises(ValueError, match='is UTF-16 or no text; save it as UTF-8'):
        read_video_list(file)


def test_another_encoding_is_refused_with_the_line(tmp_path: Path) -> None:
    file = csv_of(tmp_path, 'path,label\na.mp4,x\nb.mp4,é\n', 'latin-1')
    with pytest.raises(ValueError, match='line 3 is not UTF-8 text'):
        read_video_list(file)


def test_many_numbers_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, *(f'{i}.mp4' for i in range(60)))
    file = tmp_path / 'ages.csv'
    file.write_text('path,label\n' + '\n'.join(f'{i}.mp4,{i // 2 + 20}' for i in range(60)))
    assert len(read_video_list(file).classes) == 30  # two videos each: classes
    file.write_text('path,label\n' + '\n'.join(f'{i}.mp4,{i}' for i in range(60)))
    with pytest.raises(ValueError, match='60 different ones on 60 videos'):
        read_video_list(file)


@pytest.mark.parametrize(
    ('paths', 'message'),
    [
        ((), r'no video and no folder of images below .*\(it is empty\)'),
        (('a/b/notes.txt', 'c/d.pdf'), r'2 files with other endings were skipped: \.pdf, \.txt'),
        (('1.mp4', 'a/2.mp4'), '1.mp4 lies in no class folder; move it into one'),
        (('wave/1.jpg', 'wave/2.jpg', 'b/1.mp4'), 'wave holds images, so it is one video'),
        (('a/1.mp4', 'a/2.mp4'), "the only class is 'a'"),
        (('a/1.mp4', 'b/2.mp4', 'c/3.mp4'), 'each of the 3 classes has one video'),
        (('Wave/1.mp4', 'wave/2.mp4', 'x/1.mp4'), 'differ in upper and lower case alone'),
    ],
)
def test_bad_folders_get_a_sentence(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    make(tmp_path, *paths)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_video_list(tmp_path)


def test_a_path_that_does_not_exist_and_options_without_effect(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='VIDEOS .*nowhere does not exist'):
        read_video_list(tmp_path / 'nowhere')
    make(tmp_path, 'a/1.mp4', 'b/1.mp4')
    with pytest.raises(ValueError, match='--root has no effect'):
        read_video_list(tmp_path, root=tmp_path)
    with pytest.raises(ValueError, match='a folder per class gives a video one label'):
        read_video_list(tmp_path, multi_label=True)


def test_names_that_no_annotation_file_can_hold_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, 'a/1.mp4', 'a/2.mp4', 'b/3.mp4', 'b/x\ty.mp4')
    (tmp_path / 'a' / '2.mp4').rename(tmp_path / 'a' / os.fsdecode(b'\xff.mp4'))
    make(tmp_path, 'a/2.mp4')
    reasons = dict(read_video_list(tmp_path).left_out)
    assert 'has a tab' in reasons['b/x\ty.mp4'] and 'is not UTF-8' in reasons['a/\udcff.mp4']
