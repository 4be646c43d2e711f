"""Whole runs of finetune on data made here; figures are in docs/datasets/your_own.md."""

import shutil
from pathlib import Path

import pytest

from mmtimesformer.analysis.predictions import read_predictions, top1
from mmtimesformer.datasets.preparation.moving_shapes import Settings, make_moving_shapes
from mmtimesformer.datasets.preparation.two_shapes import make_two_shapes
from mmtimesformer.finetuning.workflow import Options, finetune

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore')]


def class_folders(folder: Path, settings: Settings | None = None) -> Path:
    """Write Moving Shapes as a user has videos: a folder per class, without lists."""
    make_moving_shapes(folder / 'made', settings)
    for split in ('train', 'val'):
        for file in (folder / 'made' / f'videos_{split}').iterdir():
            number, _, label = file.stem.partition('_')
            place = folder / 'shapes' / label / f'{split}{number}.mp4'
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, place)
    return folder / 'shapes'


def test_class_folders_reach_95_per_cent_from_scratch(tmp_path: Path) -> None:
    """Like `make demo`, ten minutes on two cores."""
    finetune(Options(class_folders(tmp_path), tmp_path / 'out', quick_check=True))
    assert top1(*read_predictions(tmp_path / 'out' / 'predictions.pkl')) >= 0.95


def test_two_shapes_reach_a_mean_average_precision_of_95_per_cent(tmp_path: Path) -> None:
    from sklearn.metrics import average_precision_score

    csv = make_two_shapes(tmp_path / 'two')
    finetune(Options(csv, tmp_path / 'out', quick_check=True, flip=False))
    scores, labels = read_predictions(tmp_path / 'out' / 'predictions.pkl')
    assert average_precision_score(labels, scores, average='macro') >= 0.95


def test_ten_clips_of_unseen_motions_are_probed_20_points_above_chance(tmp_path: Path) -> None:
    """Trained on four motions; a probe on ten clips of each of the four others, 200 to test on."""
    shapes = class_folders(tmp_path)
    few = tmp_path / 'few'
    for motion in ('up', 'down', 'growing', 'shrinking'):
        videos = sorted((shapes / motion).iterdir())
        for split, chosen in (('train', videos[:10]), ('val', videos[-50:])):
            (few / split / motion).mkdir(parents=True)
            for file in chosen:
                shutil.move(file, few / split / motion)
        shutil.rmtree(shapes / motion)
    model = finetune(Options(shapes, tmp_path / 'known', quick_check=True, epochs=36))
    finetune(Options(few, tmp_path / 'out', pretrained=str(model), quick_check=True))
    assert top1(*read_predictions(tmp_path / 'out' / 'result.pkl')) >= 0.25 + 0.20


def test_few_clips_with_pretrained_weights_are_probed(tmp_path: Path) -> None:
    """The first run trains on four classes for a moment; the second probes its features."""
    shapes = class_folders(tmp_path, Settings(num_train=80, num_val=16))
    first = finetune(Options(shapes, tmp_path / 'first', epochs=1, quick_check=True))
    second = Options(shapes, tmp_path / 'second', pretrained=str(first), quick_check=True)
    from mmtimesformer import VideoClassifier

    clf = VideoClassifier(checkpoint=finetune(second))
    assert len(clf.classes or ()) == 8
    assert (tmp_path / 'second' / 'report.html').is_file()
    assert clf(next((shapes / 'left').iterdir())).top in (clf.classes or ())
