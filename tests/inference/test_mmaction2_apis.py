"""MMAction2's own ways to label a video work with our configs, and give the same scores."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer import VideoClassifier
from mmtimesformer.compat.data_samples import scores_of


@pytest.fixture(autouse=True)
def _scope_as_before() -> None:
    """MMAction2 sets its scope for the process."""
    before = dict(DefaultScope._instance_dict)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


def test_inference_recognizer_gives_our_scores(
    config: Path, checkpoint: Path, tiny_videos: Path
) -> None:
    from mmaction.apis import inference_recognizer, init_recognizer

    video = str(tiny_videos / '0.mp4')
    model = init_recognizer(str(config), str(checkpoint), device='cpu')
    theirs = scores_of(inference_recognizer(model, video)).numpy()
    assert np.abs(theirs - VideoClassifier(config, checkpoint)(video).all_scores).max() < 1e-6


@pytest.mark.filterwarnings('ignore')  # theirs
def test_the_inferencer_gives_our_scores_of_a_centre_crop(
    config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """It always reads by decord, and takes the centre crop where a config has three crops."""
    from mmaction.apis import MMAction2Inferencer

    names = tmp_path / 'names.txt'
    names.write_text('a\nb\nc\n')
    video = str(tiny_videos / '0.mp4')
    inferencer = MMAction2Inferencer(
        rec=str(config), rec_weights=str(checkpoint), device='cpu', label_file=str(names)
    )
    (theirs,) = inferencer(video)['predictions'][0]['rec_scores']

    cfg = Config.fromfile(config)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[0].reader, pipeline[4].type = 'decord', 'CenterCrop'
    ours = VideoClassifier(cfg, checkpoint)(video).all_scores
    assert np.abs(np.array(theirs) - ours).max() < 1e-6
