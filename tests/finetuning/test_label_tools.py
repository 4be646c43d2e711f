"""Labels go to Label Studio and CVAT and come back, in the documented JSON forms."""

import json
from pathlib import Path
from runpy import run_path
from typing import Any
from xml.etree import ElementTree

import pytest

from mmtimesformer.finetuning.cvat import export_cvat
from mmtimesformer.finetuning.label_studio import export_label_studio
from mmtimesformer.finetuning.label_tools import import_labels
from mmtimesformer.finetuning.labels_csv import Labeled, read_labels, write_labels
from mmtimesformer.finetuning.video_list import read_video_list

VIDEOS = [
    Labeled('run/ä b.mp4', ('run & "jump"',), 'unsure'),
    Labeled('walk/c,d.mp4', ('walk',)),
    Labeled('e.mp4', ('walk',), 'corrected'),
]


def choice(*names: str) -> dict[str, Any]:
    result = {'from_name': 'label', 'to_name': 'video', 'type': 'choices'}
    return {'result': [{**result, 'value': {'choices': list(names)}}], 'was_cancelled': False}


def write(folder: Path, content: Any) -> Path:
    path = folder / 'export.json'
    path.write_text(json.dumps(content))
    return path


def test_a_csv_file_comes_back_and_is_what_finetune_reads(tmp_path: Path) -> None:
    write_labels(VIDEOS, tmp_path / 'list.csv')
    assert read_labels(tmp_path / 'list.csv') == VIDEOS
    for video in VIDEOS:
        (tmp_path / video.path).parent.mkdir(exist_ok=True)
        (tmp_path / video.path).touch()
    read = read_video_list(tmp_path / 'list.csv')
    assert {item.path: item.labels for item in read.items} == {v.path: v.labels for v in VIDEOS}


def test_tasks_of_label_studio_have_pre_annotations_and_a_labeling_config(tmp_path: Path) -> None:
    config = export_label_studio(VIDEOS, tmp_path / 'tasks.json')
    first = json.loads((tmp_path / 'tasks.json').read_text())[0]
    assert first['data']['video'] == '/data/local-files/?d=run/%C3%A4%20b.mp4'
    assert first['predictions'][0]['result'] == choice('run & "jump"')['result']
    names = [one.get('value') for one in ElementTree.parse(config).iter('Choice')]
    assert names == ['run & "jump"', 'walk']
    back = import_labels(tmp_path / 'tasks.json', unreviewed=True).videos
    assert [(v.path, v.labels) for v in back] == [(v.path, v.labels) for v in VIDEOS]
    with pytest.raises(ValueError, match='none of the 3 videos has a label'):
        import_labels(tmp_path / 'tasks.json')


def test_annotations_of_label_studio_are_imported(tmp_path: Path) -> None:
    tasks = [
        {'id': 1, 'data': {'video': '/data/upload/3/0123abcd-a.mp4'}, 'annotations': [choice('x')]},
        {
            'data': {'video': '/data/local-files/?d=v/b.mp4'},
            'annotations': [{**choice('y'), 'was_cancelled': True}, choice('x')],
            'predictions': [choice('y')],
        },
        {'data': {'video': 's3://bucket/c.mp4'}, 'annotations': []},
        {'data': {'video': 's3://bucket/d.mp4'}, 'annotations': 2 * [choice('x', 'y')]},
    ]
    imported = import_labels(write(tmp_path, tasks), prefix='s3://bucket/')
    assert imported.videos == [
        Labeled('a.mp4', ('x',)),
        Labeled('v/b.mp4', ('x',), 'corrected'),
        Labeled('d.mp4', ('x', 'y')),
    ]
    assert imported.left_out == ['c.mp4']
    short = [
        {'id': 1, 'video': 'a.mp4', 'label': 'x'},
        {'id': 2, 'video': 'b.mp4', 'label': {'choices': ['x', 'y']}},
    ]
    assert [v.labels for v in import_labels(write(tmp_path, short)).videos] == [('x',), ('x', 'y')]


def test_tags_of_cvat_go_out_and_come_back(tmp_path: Path) -> None:
    labels = export_cvat(VIDEOS, tmp_path / 'default.json')
    assert [one['name'] for one in json.loads(labels.read_text())] == ['run & "jump"', 'walk']
    back = import_labels(tmp_path / 'default.json').videos
    assert [(v.path, v.labels) for v in back] == [(v.path, v.labels) for v in VIDEOS]
    content = json.loads((tmp_path / 'default.json').read_text())
    for item in content['items']:
        del item['attr']  # as CVAT exports them
    content['items'][0]['annotations'].append({'type': 'bbox', 'label_id': 1, 'bbox': [0, 0, 1, 1]})
    content['items'][1]['annotations'] = []
    imported = import_labels(write(tmp_path, content), suffix='.avi')
    assert [v.path for v in imported.videos] == ['run/ä b.avi', 'e.avi']
    assert imported.left_out == ['walk/c,d.avi']
    assert imported.videos[0].labels == ('run & "jump"',), 'a box is no label of the video'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (3, 'it is no export of Label Studio or CVAT'),
        ({'items': []}, 'categories.label.labels or items is missing'),
        ([3], 'task 0 is no object'),
        ([{'data': {'image': 'a.png'}}], 'task 0 has no video'),
        ([{'data': {'video': 'a'}, 'annotations': [choice('x'), choice('y')]}], 'that differ'),
        ([{'video': 'a', 'label': 'x'}, {'video': 'a', 'label': 'x'}], 'a is labeled twice'),
        (
            {
                'categories': {'label': {'labels': [{'name': 'x'}]}},
                'items': [{'id': 'a', 'annotations': [{'type': 'label', 'label_id': -1}]}],
            },
            'a has the label_id -1, and there are 1 labels',
        ),
    ],
)
def test_what_cannot_be_imported_is_an_error(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        import_labels(write(tmp_path, content))


def test_what_cannot_be_exported_is_an_error(tmp_path: Path) -> None:
    two = [Labeled('a.mp4', ('x',)), Labeled('a.avi', ('y',))]
    with pytest.raises(ValueError, match='two videos are called a, without the ending'):
        export_cvat(two, tmp_path / 'out.json')
    with pytest.raises(ValueError, match="'x;y' has ';'"):
        write_labels([Labeled('a', ('x;y', 'z'))], tmp_path / 'out.csv')
    (tmp_path / 'list.csv').write_text('path,label\na,x\na,y\n')
    with pytest.raises(ValueError, match='line 3 has a again'):
        read_labels(tmp_path / 'list.csv')
    (tmp_path / 'list.csv').write_text('path,label\nmy, video.mp4,x\n')
    with pytest.raises(ValueError, match='line 2 has 3 columns, and its heading 2; put'):
        read_labels(tmp_path / 'list.csv')
    (tmp_path / 'list.csv').write_text('path,label,label\na,x,y\n')
    with pytest.raises(ValueError, match='has a column name twice: path, label, label'):
        read_labels(tmp_path / 'list.csv')
    (tmp_path / 'list.csv').write_text('a,x\nb,y\n')
    with pytest.raises(ValueError, match='columns path and label'):
        read_labels(tmp_path / 'list.csv')


def test_the_tool_exports_and_imports(tmp_path: Path, capfd: Any) -> None:
    tool = Path(__file__).parents[2] / 'tools' / 'data' / 'labels.py'
    main = run_path(str(tool))['main']
    write_labels(VIDEOS, tmp_path / 'list.csv')
    tasks, back = str(tmp_path / 'tasks.json'), str(tmp_path / 'back.csv')
    assert main(['export', str(tmp_path / 'list.csv'), '--to', 'cvat', '--out', tasks]) == 0
    assert main(['import', tasks, '--out', back]) == 0
    assert [v.labels for v in read_labels(tmp_path / 'back.csv')] == [v.labels for v in VIDEOS]
    assert main(['import', tasks, '--out', tasks]) == 1
    assert 'would overwrite its input' in capfd.readouterr().err
    with pytest.raises(SystemExit, match='2'):
        main(['export', tasks, '--out', back])
