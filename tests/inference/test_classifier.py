"""Labels are those of a test, for each kind of video and each source of the config."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmtimesformer import VideoClassifier
from mmtimesformer.checkpoints import load, read_checkpoint, save_checkpoint
from mmtimesformer.compat.data_samples import scores_of
from mmtimesformer.inference import loading

from .conftest import CLASSES, save


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


@pytest.fixture
def clf(config: Path, checkpoint: Path) -> VideoClassifier:
    return VideoClassifier(config, checkpoint, device='cpu')


def test_scores_are_those_of_a_test(
    config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    from mmtimesformer.engine.runner import Runner

    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(config)
    cfg.update(work_dir=str(tmp_path / 'work'), load_from=str(checkpoint), experiment_name='same')
    cfg.test_evaluator = [
        cfg.test_evaluator,
        dict(type='DumpResults', out_file_path=str(tmp_path / 'result.pkl')),
    ]
    Runner.from_cfg(cfg).test()
    dumped = pickle.loads((tmp_path / 'result.pkl').read_bytes())

    clf = VideoClassifier(config, checkpoint, device='cpu')
    found = clf([tiny_videos / f'{i}.mp4' for i in (3, 4, 5)], batch_size=2)
    assert len(dumped) == len(found) == 3
    for one, other in zip(found, dumped, strict=True):
        assert np.abs(one.all_scores - scores_of(other).numpy()).max() < 1e-6
    assert np.ptp(found[0].all_scores) > 0.05  # or every model would pass


@pytest.mark.parametrize('most', [1, 2])
def test_max_testing_views_bounds_the_views_of_a_batch_and_changes_no_score(
    clf: VideoClassifier, config: Path, checkpoint: Path, tiny_videos: Path, most: int
) -> None:
    videos = [tiny_videos / f'{i}.mp4' for i in range(3)]
    text = config.read_text().replace('model = dict(', 'model = dict(test_cfg=VIEWS,')
    config.write_text(f'VIEWS = dict(max_testing_views={most})\n{text}')
    in_parts = VideoClassifier(config, checkpoint, device='cpu')
    together: list[int] = []
    in_parts.model.backbone.register_forward_pre_hook(
        lambda _, video: together.append(len(video[0]))
    )
    found = in_parts(videos, batch_size=3)
    assert together == {1: [1] * 9, 2: [2, 1] * 3}[most]  # three crops of each video
    for one, other in zip(found, clf(videos), strict=True):
        assert np.abs(one.all_scores - other.all_scores).max() < 1e-6


def test_a_training_checkpoint_is_enough(
    clf: VideoClassifier, checkpoint: Path, tiny_videos: Path
) -> None:
    alone = VideoClassifier(checkpoint=checkpoint, device='cpu')
    video = tiny_videos / '0.mp4'
    assert alone.classes == CLASSES
    assert np.array_equal(alone(video).all_scores, clf(video).all_scores)


def test_the_data_of_the_training_need_not_be_there(
    config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    config.write_text(config.read_text().replace(str(tiny_videos), '/nowhere'))
    assert VideoClassifier(config, checkpoint)(tiny_videos / '0.mp4').top in CLASSES


@pytest.mark.parametrize('system', ['official', 'huggingface', 'mmaction2', 'mmtimesformer'])
def test_checkpoints_of_every_system_give_the_same_scores(
    clf: VideoClassifier, config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path,
    system: str,
) -> None:  # fmt: skip
    out = tmp_path / ('folder' if system == 'huggingface' else 'converted.pth')
    save_checkpoint(read_checkpoint(checkpoint, num_heads=2), out, to=system)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # other systems, other preprocessing
        other = VideoClassifier(config, out)
    video = tiny_videos / '0.mp4'
    assert np.abs(other(video).all_scores - clf(video).all_scores).max() < 1e-6


def test_a_converted_checkpoint_with_its_preprocessing_is_enough(
    weights: dict[str, torch.Tensor], tiny_videos: Path, tmp_path: Path
) -> None:
    preprocessing = {'frame_interval': 2, 'num_frames': 4, 'mean': [0.5] * 3, 'std': [0.25] * 3}
    metadata = {'source': 'mmaction2', 'num_heads': 2, 'preprocessing': preprocessing}
    converted = save(tmp_path / 'converted.pth', weights, mmtimesformer=metadata)
    clf = VideoClassifier(checkpoint=converted)
    assert clf.inference_config.protocol == 'mmaction2'
    assert clf.clips(tiny_videos / '0.mp4').shape == (3, 3, 4, 32, 32)  # three crops
    assert clf(tiny_videos / '0.mp4').labels == [str(i) for i in clf(tiny_videos / '0.mp4').indices]

    ssv2 = {
        **metadata,
        'source': 'official',
        'preprocessing': {**preprocessing, 'channel_order': 'BGR'},
    }
    clf = VideoClassifier(checkpoint=save(tmp_path / 'ssv2.pth', weights, mmtimesformer=ssv2))
    assert (clf.inference_config.protocol, clf.fusion) == ('ssv2-official', 'sum of logits')
    video = np.zeros((9, 32, 32, 3), np.uint8)
    video[..., 0] = 255  # red comes last where the model wants BGR
    assert clf.clips(video)[0, :, 0].mean((1, 2)).argmax() == 2

    del preprocessing['frame_interval']
    incomplete = save(tmp_path / 'incomplete.pth', weights, mmtimesformer=metadata)
    with pytest.raises(ValueError, match='it lacks frame_interval.*give its config too'):
        VideoClassifier(checkpoint=incomplete)


def test_an_array_gets_the_scores_of_its_file(clf: VideoClassifier, tiny_videos: Path) -> None:
    path = tiny_videos / '1.mp4'
    assert np.array_equal(clf(frames_of(path)).all_scores, clf(path).all_scores)
    assert clf([frames_of(path), str(path)])[0].video == 'array 0'


def test_a_batch_gives_what_single_videos_give(clf: VideoClassifier, tiny_videos: Path) -> None:
    together = clf(tiny_videos, batch_size=4)
    assert [Path(one.video).name for one in together] == [f'{i}.mp4' for i in range(6)]
    for one in together:
        assert np.abs(one.all_scores - clf(one.video).all_scores).max() < 1e-6


def test_views_of_several_shapes_go_through_one_call(
    config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    """A pipeline without a crop gives every video its own size."""
    cfg = Config.fromfile(config)
    del cfg.test_dataloader.dataset.pipeline[4]
    clf = VideoClassifier(cfg, checkpoint)
    wide, tall = frames_of(tiny_videos / '0.mp4')[:, :32, :64], frames_of(tiny_videos / '1.mp4')
    tall = tall[:, :64, :32]
    together = clf([wide, tall, wide])
    assert clf.clips(wide).shape == (1, 3, 4, 32, 64)
    assert clf.clips(tall).shape == (1, 3, 4, 64, 32)
    assert np.allclose(together[1].all_scores, clf(tall).all_scores, atol=1e-6)
    assert np.allclose(together[2].all_scores, together[0].all_scores, atol=1e-6)


def test_the_best_classes_come_first_and_read_well(clf: VideoClassifier, tiny_videos: Path) -> None:
    found = clf(tiny_videos / '0.mp4', topk=9)
    assert found.scores == sorted(found.scores, reverse=True)
    assert len(found.labels) == 3
    assert found.top == CLASSES[int(found.all_scores.argmax())]
    assert sum(found.scores) == pytest.approx(1, abs=1e-5)
    assert f'{100 * found.scores[0]:.1f} %' in str(found).splitlines()[1]


@pytest.mark.parametrize('fusion', ['score', 'sum'])
def test_logits_are_not_shown_as_per_cent(
    config: Path, checkpoint: Path, tiny_videos: Path, fusion: str
) -> None:
    cfg = Config.fromfile(config)
    cfg.model.cls_head.update(type='mmtimesformer.TimeSformerHead', average_clips=fusion)
    found = VideoClassifier(cfg, checkpoint)(tiny_videos / '0.mp4')
    assert not found.is_probability
    assert '%' not in str(found)


def test_views_that_are_kept_apart_are_averaged_as_probabilities(
    clf: VideoClassifier, config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    cfg = Config.fromfile(config)
    cfg.model.cls_head.average_clips = None
    found, video = VideoClassifier(cfg, checkpoint), tiny_videos / '0.mp4'
    assert np.allclose(found(video).all_scores, clf(video).all_scores, atol=1e-6)


def test_names_come_from_the_argument_the_checkpoint_or_the_data(
    config: Path, weights: dict[str, torch.Tensor], checkpoint: Path, tmp_path: Path
) -> None:
    names = tmp_path / 'names.txt'
    names.write_text('a\nb\nc\n', encoding='utf-8')
    assert VideoClassifier(config, checkpoint, classes=names).classes == ['a', 'b', 'c']
    assert VideoClassifier(config, checkpoint, classes=['x', 'y', 'z']).classes == ['x', 'y', 'z']
    bare = save(tmp_path / 'bare.pth', weights)
    assert VideoClassifier(config, bare).classes is None
    cfg = Config.fromfile(config)
    cfg.test_dataloader.dataset.metainfo = dict(classes=str(names))
    assert VideoClassifier(cfg, bare).classes == ['a', 'b', 'c']
    with pytest.raises(ValueError, match='there are 2 class names and the model has 3 classes'):
        VideoClassifier(config, checkpoint, classes=['a', 'b'])


def with_classes(weights: dict[str, torch.Tensor], num_classes: int) -> dict[str, torch.Tensor]:
    head = {'weight': torch.randn(num_classes, 24), 'bias': torch.zeros(num_classes)}
    return {**weights, **{f'cls_head.fc_cls.{key}': value for key, value in head.items()}}


@pytest.mark.parametrize('where', ['config', 'stored config', 'config name', 'checkpoint name'])
def test_a_model_of_kinetics_has_names_without_any_data_set_on_disk(
    config: Path, weights: dict[str, torch.Tensor], tiny_videos: Path, tmp_path: Path, where: str
) -> None:
    text = config.read_text().replace('num_classes=3', 'num_classes=400')
    if 'config' in where and 'name' not in where:
        metainfo = "metainfo=dict(classes='data/kinetics400/classes.txt'), pipeline"
        text = text.replace('pipeline=test', f'{metainfo}=test')
    config = tmp_path / ('tiny_kinetics400-rgb.py' if where == 'config name' else 'tiny.py')
    config.write_text(text)
    large = with_classes(weights, 400)
    meta = {'cfg': Config.fromfile(config).pretty_text} if where == 'stored config' else {}
    name = 'tiny_K400.pth' if where == 'checkpoint name' else 'epoch_1.pth'
    checkpoint = save(tmp_path / name, large, **meta)
    clf = VideoClassifier(None if meta else config, checkpoint, device='cpu')
    assert clf.classes is not None
    assert (clf.classes[0], clf.classes[5], clf.classes[399]) == ('abseiling', 'archery', 'zumba')
    assert clf(tiny_videos / '0.mp4').top in clf.classes
    own = [f'class {i}' for i in range(400)]
    given = VideoClassifier(None if meta else config, checkpoint, device='cpu', classes=own)
    assert given.classes == own
    stored = save(tmp_path / name, large, **meta, dataset_meta={'classes': own})
    assert VideoClassifier(None if meta else config, stored, device='cpu').classes == own


def test_the_number_of_classes_alone_gives_no_names(
    config: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    config.write_text(config.read_text().replace('num_classes=3', 'num_classes=400'))
    checkpoint = save(tmp_path / 'epoch_1.pth', with_classes(weights, 400))
    assert VideoClassifier(config, checkpoint, device='cpu').classes is None
    fine_tuned = save(tmp_path / 'from_k600.pth', with_classes(weights, 400))
    assert VideoClassifier(config, fine_tuned, device='cpu').classes is None


def test_unreadable_files_of_a_folder_are_skipped_and_told(
    clf: VideoClassifier, tiny_videos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'a.mp4').write_bytes(b'no video')
    (folder / 'b.mp4').write_bytes((tiny_videos / '0.mp4').read_bytes())
    (folder / 'c.avi').write_bytes(b'')
    found = clf(folder)
    assert [Path(one.video).name for one in found] == ['b.mp4']
    assert [Path(one.video).name for one in found.skipped] == ['a.mp4', 'c.avi']
    assert found.skipped[1].reason == 'is an empty file'
    assert 'skipped: cannot be read' in str(found)
    with pytest.raises(ValueError, match=r'a\.mp4 \(8 bytes\) cannot be read'):
        clf(folder / 'a.mp4')
    (folder / 'b.mp4').unlink()
    with pytest.raises(ValueError, match='none of 2 videos could be read; the first, .*a.mp4'):
        clf(folder)


def sound_alone(path: Path) -> Path:
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('aac', rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ('video', 'message'),
    [
        ('nowhere.mp4', 'nowhere.mp4 does not exist'),
        ('https://host/video.mp4', 'download it first'),
        (np.zeros((4, 32, 32), np.uint8), r'shape \(4, 32, 32\) is no video; frames are an array'),
        (np.zeros((4, 32, 32, 3)), 'array of float64 is no video'),
        (np.zeros((0, 32, 32, 3), np.uint8), 'is no video'),
        (7, 'not int'),
    ],
)
def test_an_input_that_is_no_video_is_refused(
    clf: VideoClassifier, video: Any, message: str
) -> None:
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        clf(video)


def test_sound_without_pictures_is_told(clf: VideoClassifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='sound.mp4 holds sound and no pictures'):
        clf(sound_alone(tmp_path / 'sound.mp4'))


def test_a_folder_without_videos_is_told(clf: VideoClassifier, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no video'):
        clf(tmp_path / 'empty')


def test_a_classifier_without_trained_classes_gives_no_labels(
    config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    cfg = Config.fromfile(config)
    cfg.model.cls_head.num_classes = 5
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)
        clf = VideoClassifier(cfg, checkpoint)
    with pytest.raises(ValueError, match='has a classifier of 3 classes, .* wants 5'):
        clf(tiny_videos / '0.mp4')
    assert clf.features(tiny_videos / '0.mp4').shape == (3, 24)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({}, 'a classifier needs weights; give checkpoint'),
        ({'config': 'some.pth'}, 'checkpoint some.pth does not exist'),
        ({'checkpoint': 'nowhere.pth'}, 'checkpoint nowhere.pth does not exist'),
        ({'config': 'timesformer_divST', 'checkpoint': __file__}, 'not'),
        ({'checkpoint': __file__, 'device': 'gpu'}, "device 'gpu' is not known"),
        ({'checkpoint': __file__, 'device': 'cuda:99'}, 'this process sees'),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        VideoClassifier(**arguments)


@pytest.mark.parametrize('call', [dict(topk=0), dict(batch_size=0), dict(fps=-1.0)])
def test_numbers_that_are_not_positive_are_told(
    clf: VideoClassifier, tiny_videos: Path, call: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match='is not positive'):
        clf(tiny_videos / '0.mp4', **call)


def test_another_preprocessing_than_the_trained_one_is_told(config: Path, checkpoint: Path) -> None:
    cfg = Config.fromfile(config)
    cfg.model.data_preprocessor.mean = [100, 100, 100]
    with pytest.warns(UserWarning, match='mean: the checkpoint was trained with'):
        VideoClassifier(cfg, checkpoint)


@pytest.mark.parametrize('kind', ['trained', 'converted'])
def test_a_checkpoint_without_config_is_read_and_renamed_once(
    kind: str, checkpoint: Path, weights: dict[str, torch.Tensor], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    preprocessing = {'frame_interval': 2, 'num_frames': 4, 'mean': [0.5] * 3, 'std': [0.25] * 3}
    metadata = {'source': 'mmaction2', 'num_heads': 2, 'preprocessing': preprocessing}
    if kind == 'converted':
        checkpoint = save(tmp_path / 'converted.pth', weights, mmtimesformer=metadata)
    calls = []
    for module, name in ((loading, 'read_file'), (load, 'to_canonical')):
        function = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *args, f=function, n=name: calls.append(n) or f(*args)
        )
    VideoClassifier(checkpoint=checkpoint, device='cpu')
    assert calls == ['read_file', 'to_canonical']
