"""Steps, resuming and refusals, with training and test replaced; whole runs are in test_runs.py."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmtimesformer.cli import RunStopped
from mmtimesformer.finetuning import workflow
from mmtimesformer.finetuning.inspection import Sizes
from mmtimesformer.finetuning.video_list import Item
from mmtimesformer.finetuning.workflow import Options, finetune, python_lines


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Twelve files of two classes, of which one is found to be corrupt."""
    for name in ('wave', 'clap hands'):
        (tmp_path / 'mine' / name).mkdir(parents=True)
        for i in range(6):
            (tmp_path / 'mine' / name / f'{i}.mp4').write_bytes(b'x')

    def inspect(root: Path, paths: list[str], *_: object) -> tuple[Sizes, dict[str, str]]:
        calls.append('check')
        return Sizes(21, 10.0, 64), {'wave/5.mp4': 'it is cut short'}

    calls.clear()
    monkeypatch.setattr(workflow, 'inspect_videos', inspect)
    monkeypatch.setattr(workflow, 'call', call)
    return Options(tmp_path / 'mine', tmp_path / 'out')


calls: list[str] = []
failing: list[str] = []


def call(tool: str, *arguments: str) -> None:
    if tool in failing:
        raise RunStopped('stopped', 75)
    calls.append(tool)
    if tool == 'train':
        out = Path(arguments[arguments.index('--work-dir') + 1])
        content = {'meta': {'cfg': ''}, 'state_dict': {'w': torch.zeros(1)}, 'optimizer': {}}
        torch.save(content, out / 'best_acc_top1_epoch_3.pth')
        (out / 'last_checkpoint').write_text('best')


def test_every_step_runs_once_and_a_stopped_run_continues(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append('test')
    with pytest.raises(RunStopped):
        finetune(options)
    failing.clear()
    assert calls == ['check', 'train']
    model = finetune(options)
    assert calls == ['check', 'train', 'test', 'report']
    assert finetune(options) == model
    assert calls == ['check', 'train', 'test', 'report']
    assert torch.load(model).keys() == {'meta', 'state_dict'}
    output = capsys.readouterr().out
    for words in (
        'split by class, every video by itself (no column group',
        'left out: wave/5.mp4: it is cut short',
        'train 9 videos of 2 classes', 'val   2 videos of 2 classes',
        'full: without pretrained weights everything is trained',
        'Pretrained ones are much better', 'mirrored clips on: no class name has a word of',
        "type='mmtimesformer.TimeSformer'", 'report.html',
        *python_lines(model, options.videos.absolute() / 'clap hands/0.mp4')[:2],
    ):  # fmt: skip
        assert words in output, words


def test_lists_have_the_form_that_the_data_set_reads(options: Options) -> None:
    from mmtimesformer.datasets.video_dataset import VideoDataset

    finetune(options)
    data = options.out / 'data'
    assert (data / 'classes.txt').read_text() == 'clap hands\nwave\n'
    assert (data / 'left_out.csv').read_text() == 'path,reason\nwave/5.mp4,it is cut short\n'
    found = VideoDataset(
        str(data / 'train.txt'), [], data_prefix={'video': str(options.videos)}, delimiter='\t'
    )
    assert {info['label'] for info in found.load_data_list()} == {0, 1}
    for info in found.load_data_list():
        assert Path(info['filename']).is_file()
        assert Path(info['filename']).parent.name == ('clap hands', 'wave')[info['label']]


def test_imbalanced_classes_are_balanced_and_the_summary_has_their_mean_accuracy(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(6, 60):
        (options.videos / 'clap hands' / f'{i}.mp4').write_bytes(b'x')

    def scored(tool: str, *arguments: str) -> None:
        call(tool, *arguments)
        if tool == 'test':
            scores = {'acc/top1': 0.9, 'acc/mean1': 0.625}
            (options.out / 'predictions.meta.json').write_text(json.dumps({'scores': scores}))

    monkeypatch.setattr(workflow, 'call', scored)
    finetune(options)
    output = capsys.readouterr().out
    assert "- balanced sampler: 'clap hands' has 48 training videos, 10 times or more" in output
    assert 'mean class accuracy: 62.5 % (each class counts equally)' in output
    assert "type='mmtimesformer.ClassBalancedSampler'" in (options.out / 'config.py').read_text()


@pytest.mark.parametrize(('groups', 'folds'), [('abab', 5), ('aabb', 0), ('aabc', 0)])
def test_a_probe_is_not_cross_validated_where_a_class_has_one_group(
    groups: str, folds: int
) -> None:
    items = [Item(f'{i}.mp4', ('wave' if i < 2 else 'clap',)) for i in range(4)]
    found = {item.path: group for item, group in zip(items, groups, strict=True)}
    assert workflow._folds(items, found) == folds


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'seed': 1}, 'was begun with --seed 0, and now it is 1'),
        ({'epochs': 3}, 'was begun with --epochs None, and now it is 3'),
        ({'multi_label': True}, 'a folder per class gives a video one label'),
        ({'recipe': 'probe'}, 'was begun with --recipe None, and now it is probe'),
    ],
)
def test_other_arguments_in_the_same_folder_are_refused(
    options: Options, change: dict[str, object], message: str
) -> None:
    finetune(options)
    with pytest.raises(ValueError, match=message):
        finetune(replace(options, **change))


def test_changed_videos_and_foreign_folders_are_refused(options: Options) -> None:
    finetune(options)
    (options.videos / 'wave' / 'new.mp4').write_bytes(b'x')
    with pytest.raises(ValueError, match='have changed since .* was begun; set --out'):
        finetune(options)
    with pytest.raises(ValueError, match='is not empty and has no finetune.json'):
        finetune(replace(options, out=options.videos))
    journal = options.out / 'finetune.json'
    journal.write_text(json.dumps({'done': 3}))
    with pytest.raises(ValueError, match='finetune.json is damaged'):
        finetune(options)


def test_mistakes_are_found_before_videos_are_decoded(options: Options) -> None:
    with pytest.raises(FileNotFoundError, match='checkpoint nowhere.pth does not exist'):
        finetune(replace(options, pretrained='nowhere.pth'))
    with pytest.raises(ValueError, match='--recipe probe freezes weights'):
        finetune(replace(options, out=options.out / 'b', recipe='probe'))
    with pytest.raises(ValueError, match='above 0, and together below 1'):
        finetune(replace(options, out=options.out / 'c', val=1.5))
    assert calls == []
