"""From what publishers hand out, laid out as they do, to what MMAction2's VideoDataset reads."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from mmengine.config import DictAction

from mmtimesformer.datasets.transforms.decoding import Video

DATA_TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'data'
Tool = Callable[..., tuple[int, str]]


def load(name: str) -> ModuleType:
    """Import a tool of tools/data, none of which is in a package."""
    spec = importlib.util.spec_from_file_location(f'data_{name}', DATA_TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(tmp_path, monkeypatch, capfd) -> Tool:
    """Run a tool of tools/data in this process, in ``tmp_path``: its exit code and output."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> tuple[int, str]:
        code = load(name).main([str(word) for word in words])
        printed = capfd.readouterr()
        assert 'Traceback' not in printed.out + printed.err
        return code, printed.out + printed.err

    return run


def write_video(
    path: Path, frames: int = 4, width: int = 48, height: int = 32, fps: int = 25
) -> Path:
    """Write a video whose frames get brighter from left to right, and from one to the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {'.avi': 'mpeg4', '.webm': 'libvpx'}.get(path.suffix, 'libx264')
    ramp = np.tile(np.linspace(0, 150, width, dtype=np.uint8)[None, :, None], (height, 1, 3))
    with av.open(str(path), 'w') as container:
        options = {'preset': 'ultrafast'} if codec == 'libx264' else {}
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, 'yuv420p'
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(ramp + np.uint8(i % 50), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(annotation: Path, folder: Path, **options) -> list[tuple[str, int]]:
    """Read an annotation file through MMAction2, and see that each video is there."""
    from mmaction.datasets import VideoDataset

    data = VideoDataset(str(annotation), [], data_prefix={'video': str(folder)}, **options)
    entries = [data.get_data_info(i) for i in range(len(data))]
    assert all(Path(entry['filename']).is_file() for entry in entries)
    return [(Path(entry['filename']).name, entry['label']) for entry in entries]


# -- each data set ---------------------------------------------------------------------------------


@pytest.fixture
def kinetics(tmp_path) -> Path:
    root = tmp_path / 'data/kinetics400'
    head = 'label,youtube_id,time_start,time_end,split\n'
    train = [
        ('abseiling', '-abc_DEF123', 7),
        ('zumba', 'plain_id_01', 1),
        ('zumba', 'gone0000000', 3),
    ]
    lines = [f'{label},{video},{start},{start + 10},train\n' for label, video, start in train]
    write_file(root / 'annotations/train.csv', head + ''.join(lines))
    write_file(root / 'annotations/validate.csv', head + '"zumba",valvalvalva,0,10,validate\n')
    write_file(
        root / 'annotations/test.csv',
        'youtube_id,time_start,time_end,split\ntesttesttes,12,22,test\n',
    )
    write_video(root / 'videos_train/-abc_DEF123_000007_000017.mp4')
    write_video(root / 'videos_train/zumba/plain_id_01.mp4')
    write_video(root / 'videos_val/valvalvalva_000000_000010.avi')
    write_video(root / 'videos_test/testtesttes_000012_000022.mp4')
    return root


def test_kinetics(tool, kinetics) -> None:
    code, output = tool('prepare', 'kinetics', '400')
    assert code == 3
    assert read(kinetics / 'kinetics400_train_list_videos.txt', kinetics / 'videos_train') == [
        ('-abc_DEF123_000007_000017.mp4', 0),
        ('plain_id_01.mp4', 1),
    ]
    assert read(kinetics / 'kinetics400_val_list_videos.txt', kinetics / 'videos_val') == [
        ('valvalvalva_000000_000010.avi', 1)
    ]
    assert read(kinetics / 'kinetics400_test_list_videos.txt', kinetics / 'videos_test') == [
        ('testtesttes_000012_000022.mp4', -1)
    ]
    assert (kinetics / 'classes.txt').read_text() == 'abseiling\nzumba\n'
    assert (kinetics / 'missing.txt').read_text() == 'train\tgone0000000_000003_000013\tnot found\n'
    manifest = json.loads((kinetics / 'manifest.json').read_text())
    assert manifest['splits']['train']['listed'] == 3
    assert manifest['splits']['train']['found'] == 2
    assert manifest['sources']['train.csv'].startswith('sha256:')
    assert 'the list of train has 3 videos, 246,534 were published (quoted from' in output
    assert '2 classes are named, 400 were published' in output
    assert '1 videos are missing' in output
    assert tool('prepare', 'kinetics', '400', kinetics, '--allow-missing')[0] == 0
    write_video(kinetics / 'videos_val/other000000.mp4')
    _, output = tool('prepare', 'kinetics', '400', kinetics)
    assert f'1 videos below {kinetics / "videos_val"} are in no list' in output


def test_class_names_from_a_file_give_the_order(tool, kinetics) -> None:
    names = write_file(kinetics / 'names.txt', 'zumba\nyoga\nabseiling\n')
    tool('prepare', 'kinetics', '400', kinetics, '--classes', names)
    lines = (kinetics / 'kinetics400_train_list_videos.txt').read_text().splitlines()
    assert [line[-1] for line in lines] == ['2', '0']
    assert (kinetics / 'classes.txt').read_text() == names.read_text()


def test_names_with_spaces_are_split_by_tabs_and_the_key_is_told(tool, kinetics) -> None:
    write_video(kinetics / 'videos_train/water skiing/gone0000000.mp4')
    _, output = tool('prepare', 'kinetics', '400', kinetics)
    assert "delimiter='\\t' next to ann_file" in output
    assert not (kinetics / 'missing.txt').exists()
    annotation = kinetics / 'kinetics400_train_list_videos.txt'
    assert annotation.read_text().splitlines()[2] == 'water skiing/gone0000000.mp4\t1'
    assert ('gone0000000.mp4', 1) in read(annotation, kinetics / 'videos_train', delimiter='\t')
    assert json.loads((kinetics / 'manifest.json').read_text())['delimiter'] == '\t'
    # and on the command line of tools/train.py, in bash: --cfg-options a.delimiter=$'\t'
    assert DictAction._parse_iterable('\t') == '\t'


def test_an_empty_file_counts_as_missing(tool, kinetics) -> None:
    (kinetics / 'videos_train/gone0000000.mp4').touch()
    tool('prepare', 'kinetics', '400', kinetics)
    missing = (kinetics / 'missing.txt').read_text()
    assert missing == 'train\tgone0000000_000003_000013\tempty file gone0000000.mp4\n'


def test_class_names_reach_the_results_through_metainfo(kinetics, tool) -> None:
    from mmaction.datasets import VideoDataset

    tool('prepare', 'kinetics', '400', kinetics)
    data = VideoDataset(
        str(kinetics / 'kinetics400_val_list_videos.txt'),
        [],
        metainfo={'classes': str(kinetics / 'classes.txt')},
    )
    assert data.metainfo['classes'] == ['abseiling', 'zumba']


def test_a_folder_without_any_of_the_videos_is_told_with_the_option(tool, kinetics) -> None:
    code, output = tool(
        'prepare', 'kinetics', '400', kinetics, '--videos-val', kinetics / 'videos_train'
    )
    assert code == 1
    assert 'none of the 1 videos of split val is below' in output
    assert 'wanted for example valvalvalva_000000_000010 or valvalvalva' in output
    assert output.rstrip().endswith('set --videos-val')
    assert not (kinetics / 'kinetics400_train_list_videos.txt').exists()
    assert tool('prepare', 'kinetics', '400', kinetics / 'nowhere')[0] == 1
    code, output = tool('prepare', 'kinetics', '400', kinetics, '--videos-train', 'nowhere')
    assert code == 1
    assert 'the video folder nowhere does not exist' in output
    assert output.rstrip().endswith('set --videos-train')


def test_the_test_list_is_left_out_where_its_videos_are_not(tool, kinetics) -> None:
    shutil.rmtree(kinetics / 'videos_test')
    assert tool('prepare', 'kinetics', '400', '--allow-missing')[0] == 0
    assert not (kinetics / 'kinetics400_test_list_videos.txt').exists()
    assert tool('prepare', 'kinetics', '400', '--videos-test', kinetics / 'videos_test')[0] == 1


@pytest.mark.parametrize('prefix', ['', 'something-something-v2-'])
def test_ssv2(tool, tmp_path, prefix) -> None:
    root = tmp_path / 'data/sthv2'
    lists = root / 'annotations'
    labels = {'Pushing something': '1', 'Holding something next to something': '0'}
    entry = {'label': 'holding x', 'placeholders': ['x', 'y']}
    write_file(lists / f'{prefix}labels.json', json.dumps(labels))
    train = [{**entry, 'id': '78687', 'template': 'Holding [something] next to [something]'}]
    write_file(lists / f'{prefix}train.json', json.dumps(train))
    validation = [{**entry, 'id': '42', 'template': 'Pushing [something]'}]
    write_file(lists / f'{prefix}validation.json', json.dumps(validation))
    write_file(lists / f'{prefix}test.json', json.dumps([{'id': '1420'}]))
    for name in ('78687.webm', '42.mp4', '1420.webm'):
        write_video(root / 'videos' / name)
    code, output = tool('prepare', 'ssv2')
    assert code == 3  # the lists are shorter than the published ones
    assert '24,777 were published' in output
    assert read(root / 'sthv2_train_list_videos.txt', root / 'videos') == [('78687.webm', 0)]
    assert read(root / 'sthv2_val_list_videos.txt', root / 'videos') == [('42.mp4', 1)]
    assert read(root / 'sthv2_test_list_videos.txt', root / 'videos') == [('1420.webm', -1)]
    assert (root / 'classes.txt').read_text().splitlines() == [
        'Holding something next to something',
        'Pushing something',
    ]


def test_ucf101(tool, tmp_path) -> None:
    root = tmp_path / 'data/ucf101'
    write_file(root / 'annotations/classInd.txt', '1 Archery\n2 HandstandPushups\n')
    videos = ['Archery/v_Archery_g0{}_c01.avi', 'HandstandPushups/v_HandStandPushups_g0{}_c01.avi']
    for number in (1, 2, 3):
        test = ''.join(f'{video.format(number)}\r\n' for video in videos)
        rest = [i for i in (1, 2, 3) if i != number]
        train = ''.join(
            f'{video.format(i)} {label}\r\n' for label, video in enumerate(videos, 1) for i in rest
        )
        write_file(root / f'annotations/trainlist0{number}.txt', train)
        write_file(root / f'annotations/testlist0{number}.txt', test)
        write_video(root / 'videos' / videos[0].format(number))
        # the archive and the lists write this class in two ways
        write_video(root / 'videos' / videos[1].format(number).replace('HandStand', 'Handstand'))
    assert tool('prepare', 'ucf101')[0] == 3
    assert not (root / 'missing.txt').exists()
    for number in (1, 2, 3):
        assert read(root / f'ucf101_val_split_{number}_videos.txt', root / 'videos') == [
            (f'v_Archery_g0{number}_c01.avi', 0),
            (f'v_HandstandPushups_g0{number}_c01.avi', 1),
        ]
        assert len(read(root / f'ucf101_train_split_{number}_videos.txt', root / 'videos')) == 4


def test_hmdb51_at_its_published_size_ends_with_0(tool, tmp_path) -> None:
    """51 classes; 70, 30 and 33 videos of each in training, test and neither: 6,783 files."""
    root = tmp_path / 'data/hmdb51'
    (root / 'annotations').mkdir(parents=True)
    names = [f'class_{i:02d}' for i in range(51)]
    for name in names:
        videos = [f'#{i}_A_(B)&c!_{name}_u_nm_np1.avi' for i in range(133)]
        (root / 'videos' / name).mkdir(parents=True)
        for video in videos:
            (root / 'videos' / name / video).write_bytes(b'\0')
        for number in (1, 2, 3):
            roles = [1] * 70 + [2] * 30 + [0] * 33
            roles = roles[number:] + roles[:number]
            text = ''.join(f'{v} {r} \n' for v, r in zip(videos, roles, strict=True))
            (root / f'annotations/{name}_test_split{number}.txt').write_text(text)
    code, output = tool('prepare', 'hmdb51')
    assert code == 0
    assert 'hmdb51 is complete' in output
    for number in (1, 2, 3):
        for split, size in (('train', 70), ('val', 30)):
            lines = (root / f'hmdb51_{split}_split_{number}_videos.txt').read_text().splitlines()
            assert len(lines) == 51 * size
            assert {int(line.split()[1]) for line in lines} == set(range(51))
    # one file goes: all else stays, and the exit code is 3
    (root / 'videos/class_07/#1_A_(B)&c!_class_07_u_nm_np1.avi').unlink()
    code, output = tool('prepare', 'hmdb51')
    assert code == 3
    assert len((root / 'missing.txt').read_text().splitlines()) == 3  # once in each split


def test_diving48(tool, tmp_path) -> None:
    root = tmp_path / 'data/diving48'
    lists = root / 'annotations'
    vocabulary = [['Back', '15som', '05Twis', 'FREE'], ['Back', '15som', 'NoTwis', 'PIKE']]
    write_file(lists / 'Diving48_vocab.json', json.dumps(vocabulary))
    entry = {'start_frame': 0, 'end_frame': 100}
    for stem, video, label in (('train', '-mmq0PT-u8k_00155', 1), ('test', '_8Vy3dlHg2w_00000', 0)):
        entries = [{**entry, 'vid_name': video, 'label': label}]
        write_file(lists / f'Diving48_V2_{stem}.json', json.dumps(entries))
        write_video(root / 'videos' / f'{video}.mp4')
    assert tool('prepare', 'diving48', '--allow-missing')[0] == 0
    train, val = (root / f'diving48_{split}_list_videos.txt' for split in ('train', 'val'))
    assert read(train, root / 'videos') == [('-mmq0PT-u8k_00155.mp4', 1)]
    assert read(val, root / 'videos') == [('_8Vy3dlHg2w_00000.mp4', 0)]
    assert (root / 'classes.txt').read_text().startswith('Back 15som 05Twis FREE\n')
    write_file(lists / 'Diving48_V2_test.json', json.dumps([{'vid_name': 'a', 'label': 2}]))
    code, output = tool('prepare', 'diving48')
    assert code == 1
    assert 'video a has label 2, and Diving48_vocab.json has 2 classes' in output


def test_howto100m_by_the_lists_of_the_authors(tool, tmp_path) -> None:
    root = tmp_path / 'data/howto100m'
    train = write_file(tmp_path / 'train.csv', 'aaa.mp4 1058\nbbb.mp4 0\n')
    test = write_file(tmp_path / 'test.csv', 'ccc 5\n')
    for name in 'aaa', 'bbb', 'ccc':
        write_video(root / f'videos/{name}.webm')
    assert tool('prepare', 'howto100m', '--train', train, '--test', test, '--allow-missing')[0] == 0
    annotation = root / 'howto100m_train_list_videos.txt'
    assert read(annotation, root / 'videos') == [('aaa.webm', 1058), ('bbb.webm', 0)]
    assert len((root / 'classes.txt').read_text().splitlines()) == 1059


def test_howto100m_by_a_split_of_ones_own(tool, tmp_path) -> None:
    root = tmp_path / 'data/howto100m'
    head = 'video_id,category_1,category_2,rank,task_id\n'
    tasks = ['900'] * 6 + ['11967'] * 6 + ['3'] * 2
    videos = [f'video{i:06d}' for i in range(len(tasks))]
    rows = [
        f'{v},Food,Recipes,{i},{t}\n' for i, (v, t) in enumerate(zip(videos, tasks, strict=True))
    ]
    table = write_file(tmp_path / 'HowTo100M_v1.csv', head + ''.join(rows))
    names = write_file(tmp_path / 'task_ids.csv', '900\tMake Kimchi\n11967\tFold, a Shirt\n3\tX\n')
    for video in videos:
        (root / 'videos').mkdir(parents=True, exist_ok=True)
        (root / f'videos/{video}.mp4').write_bytes(b'\0')
    words = ['--videos-csv', table, '--task-names', names, '--min-videos', 6]
    assert tool('prepare', 'howto100m', *words)[0] == 3
    assert (root / 'classes.txt').read_text() == 'Make Kimchi\nFold, a Shirt\n'
    counts = [
        sorted(
            label for _, label in read(root / f'howto100m_{split}_list_videos.txt', root / 'videos')
        )
        for split in ('train', 'val')
    ]
    assert counts == [[0] * 4 + [1] * 4, [0, 0, 1, 1]]
    with pytest.raises(SystemExit, match='2'):
        tool('prepare', 'howto100m')


def test_ones_own_folder_per_class(tool, tmp_path) -> None:
    for name in ('wave', 'clap hands'):
        for i in range(5):
            write_video(tmp_path / f'mine/{name}/{i}.avi')
    words = ['mine', '--out', 'data/mine', '--val', 0.2, '--test', 0.2, '--seed', 3]
    assert tool('prepare', 'folder', *words)[0] == 0
    parts = [
        read(tmp_path / f'data/mine/{split}.txt', tmp_path / 'mine', delimiter='\t')
        for split in ('train', 'val', 'test')
    ]
    assert [sorted(label for _, label in part) for part in parts] == [
        [0] * 3 + [1] * 3,
        [0, 1],
        [0, 1],
    ]
    assert (tmp_path / 'data/mine/classes.txt').read_text() == 'clap hands\nwave\n'
    before = (tmp_path / 'data/mine/train.txt').read_bytes()
    assert tool('prepare', 'folder', *words)[0] == 0
    assert (tmp_path / 'data/mine/train.txt').read_bytes() == before


def test_ones_own_csv_with_a_split_of_its_own(tool, tmp_path) -> None:
    for name in 'abc':
        write_video(tmp_path / f'mine/{name}.mp4')
    table = 'path,label,split\na.mp4,up,train\nb.mp4,down,validation\nsub/c.mp4,up,train\n'
    write_file(tmp_path / 'mine.csv', table)
    assert tool('prepare', 'folder', 'mine', '--out', 'out', '--csv', 'mine.csv')[0] == 3
    assert (tmp_path / 'out/train.txt').read_text() == 'a.mp4 1\n'
    assert (tmp_path / 'out/val.txt').read_text() == 'b.mp4 0\n'
    assert (tmp_path / 'out/missing.txt').read_text() == 'train\tsub/c.mp4\tnot found\n'


# -- checking --------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(tmp_path) -> Path:
    """Good and bad videos, with an annotation file."""
    folder = tmp_path / 'videos'
    for name in ('good.mp4', 'good too.avi', 'cut.mp4', 'cut.avi', 'cut.webm'):
        write_video(folder / name, frames=50)
    for name, part in (('cut.mp4', 0.5), ('cut.avi', 0.8), ('cut.webm', 0.5)):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: round(len(content) * part)])
    (folder / 'empty.mp4').touch()
    (folder / 'noise.mp4').write_bytes(np.random.default_rng(0).bytes(3000))
    names = [*sorted(path.name for path in folder.iterdir()), 'gone.mp4']
    write_file(tmp_path / 'all.txt', ''.join(f'{name}\t{i}\n' for i, name in enumerate(names)))
    return folder


def test_bad_videos_are_named_with_the_reason(tool, spoiled, tmp_path) -> None:
    words = ['--root', spoiled, '--num-workers', 2, '--out', 'bad.csv', '--good', 'good.txt']
    code, output = tool('check_videos', 'all.txt', *words)
    assert code == 3
    assert '8 videos: 2 good, 6 bad' in output
    bad = dict(line.split(',', 1) for line in (tmp_path / 'bad.csv').read_text().splitlines()[1:])
    assert sorted(bad) == ['cut.avi', 'cut.mp4', 'cut.webm', 'empty.mp4', 'gone.mp4', 'noise.mp4']
    assert bad['empty.mp4'] == 'an empty file'
    assert bad['gone.mp4'] == 'does not exist'
    assert bad['cut.avi'].startswith('it is cut short: ')
    assert bad['cut.webm'].startswith('it is cut short: ')
    assert 'cannot be read' in bad['noise.mp4']
    assert (tmp_path / 'good.txt').read_text() == 'good too.avi\t4\ngood.mp4\t5\n'
    # what is left is good: as a folder, and in a quick look
    for name in bad:
        (spoiled / name).unlink(missing_ok=True)
    assert tool('check_videos', spoiled, '--quick')[0] == 0
    assert tool('check_videos', 'good.txt', '--root', spoiled)[0] == 0


def test_a_folder_without_videos_is_an_error_in_words(tool, tmp_path) -> None:
    code, output = tool('check_videos', tmp_path / 'none')
    assert code == 1
    assert 'error: ' in output


# -- resizing --------------------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path) -> Path:
    folder = tmp_path / 'large'
    write_video(folder / 'a b/wide.avi', 10, 130, 64, fps=12)
    write_video(folder / 'tall.mp4', 10, 66, 98)
    write_video(folder / 'small.webm', 10, 48, 32)
    return folder


def test_videos_become_small_keep_their_frames_and_are_never_enlarged(
    tool, large, tmp_path
) -> None:
    (large / 'noise.mp4').write_bytes(b'nothing')
    words = [large, 'small', '--short-side', 48, '--with', 'pyav', '--num-workers', 2]
    code, output = tool('resize_videos', *words)
    assert code == 3
    assert '2 resized' in output
    assert '1 copied' in output
    assert 'noise.mp4\t' in (tmp_path / 'small/failed.txt').read_text()
    shapes = {'a b/wide.mp4': (48, 98), 'tall.mp4': (72, 48), 'small.webm': (32, 48)}
    files = [path for path in (tmp_path / 'small').rglob('*') if path.is_file()]
    assert {str(path.relative_to(tmp_path / 'small')) for path in files} == {*shapes, 'failed.txt'}
    for name, shape in shapes.items():
        (source,) = large.rglob(f'{Path(name).stem}.*')
        before, after = Video(source), Video(tmp_path / 'small' / name)
        assert (len(after), after.fps) == (len(before), pytest.approx(before.fps, rel=1e-3))
        for i in (0, 9):
            (old,), (new,) = before.frames([i]), after.frames([i])
            assert new.shape == (*shape, 3)
            columns = np.linspace(4, old.shape[1] - 5, 6).astype(int)
            scaled = (columns * new.shape[1] / old.shape[1]).astype(int)
            assert np.abs(old[8, columns].astype(int) - new[8, scaled]).max() < 12
    (large / 'noise.mp4').unlink()
    code, output = tool('resize_videos', *words)
    assert code == 0
    assert output.rstrip().endswith('3 there already')


def test_the_program_ffmpeg_is_used_where_there_is_one(tool, large, tmp_path, monkeypatch) -> None:
    """A stand-in notes the command and writes a whole video."""
    ready = write_video(tmp_path / 'ready.mp4', 10, 98, 48)
    script = (
        f'#!/bin/sh\necho "$@" >> {tmp_path}/commands\nfor last; do :; done\ncp {ready} "$last"\n'
    )
    program = write_file(tmp_path / 'bin/ffmpeg', script)
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{program.parent}{os.pathsep}{os.environ["PATH"]}')
    assert tool('resize_videos', large, 'small', '--short-side', 48, '--crf', 23)[0] == 0
    commands = (tmp_path / 'commands').read_text().splitlines()
    assert len(commands) == 2  # not for the one that is small
    assert all('-crf 23' in command for command in commands)
    assert all("w='if(lt(iw,ih),48,-2)':h='if(lt(iw,ih),-2,48)'" in command for command in commands)
    write_file(program, '#!/bin/sh\necho "Conversion failed!" >&2\nexit 1\n')
    assert tool('resize_videos', large, 'other', '--short-side', 48)[0] == 3
    assert 'ffmpeg: Conversion failed!' in (tmp_path / 'other/failed.txt').read_text()
    assert not list((tmp_path / 'other').rglob('*.mp4'))


def test_a_killed_run_leaves_no_half_file_and_is_finished_by_the_next(tool, tmp_path) -> None:
    for i in range(2):
        write_video(tmp_path / f'long/{i}.mp4', 300, 320, 240)
    small = tmp_path / 'small'
    words = ['long', 'small', '--short-side', '200', '--num-workers', '1', '--with', 'pyav']
    root = DATA_TOOLS.parents[1]
    command = [sys.executable, str(DATA_TOOLS / 'resize_videos.py'), *words]
    environment = {**os.environ, 'PYTHONPATH': str(root)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(small.glob('*.part')) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = list(small.glob('*.mp4'))
    assert len(finished) < 2
    assert all(len(Video(path)) == 300 for path in finished)
    left = write_file(small / '.2.mp4.1.part', 'left by a run of last week')
    os.utime(left, (0, 0))
    assert tool('resize_videos', *words)[0] == 0
    assert [len(Video(small / f'{i}.mp4')) for i in range(2)] == [300] * 2
    assert not left.exists()


def test_a_video_that_takes_too_long_leaves_nothing(tool, tmp_path) -> None:
    write_video(tmp_path / 'long/0.mp4', 200, 640, 480)
    words = ['long', 'small', '--short-side', '470', '--timeout', '0.2', '--with', 'pyav']
    assert tool('resize_videos', *words)[0] == 3
    assert 'no answer in 0.2 seconds' in (tmp_path / 'small/failed.txt').read_text()
    assert [path.name for path in (tmp_path / 'small').iterdir()] == ['failed.txt']


def test_what_cannot_be_resized_is_refused_before_anything_is_done(tool, large, tmp_path) -> None:
    assert (
        '--short-side 47 is not an even number'
        in tool('resize_videos', large, 's', '--short-side', 47)[1]
    )
    assert 'set DST to another folder' in tool('resize_videos', large, large / 'small')[1]
    assert not (tmp_path / 'small').exists()


# -- documentation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'page',
    sorted((DATA_TOOLS.parents[1] / 'docs/datasets').glob('*.md')),
    ids=lambda page: page.name,
)
def test_every_command_of_the_documentation_is_one_that_the_tool_takes(page) -> None:
    """And each page that a page links to is there."""
    text = page.read_text()
    for line in re.findall(r'^python tools/data/(.*)$', text, re.MULTILINE):
        script, *words = shlex.split(line)
        load(Path(script).stem).parse_args(words)
    for link in re.findall(r'\]\(([^)#:]+)\)', text):
        assert (page.parent / link).is_file(), link


def test_lists_of_videos_do_not_overwrite_the_annotation_file_or_each_other(tool, tmp_path) -> None:
    write_file(tmp_path / 'all.txt', 'a.mp4 0\n')
    for words, named in (
        (('--out', 'all.txt'), '--out all.txt'),
        (('--good', './all.txt'), '--good all.txt'),
        (('--out', 'x.txt', '--good', 'x.txt'), '--good x.txt'),
        (('--out', 'all.txt/x.csv'), '--out all.txt/x.csv'),  # before the videos are decoded
    ):
        code, output = tool('check_videos', 'all.txt', *words)
        assert (code, named in output) == (1, True), output
    assert (tmp_path / 'all.txt').read_text() == 'a.mp4 0\n'
    assert [path.name for path in tmp_path.iterdir()] == ['all.txt']
