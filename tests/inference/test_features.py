"""Features of the backbone: the class token is the input of the classifier."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer import VideoClassifier


@pytest.fixture(params=['divided_space_time', 'joint_space_time', 'space_only'])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def clf(config: Path, checkpoint: Path) -> VideoClassifier:
    return VideoClassifier(config, checkpoint, device='cpu')


def test_the_classifier_reads_the_class_token(clf: VideoClassifier, tiny_videos: Path) -> None:
    video = tiny_videos / '0.mp4'
    with torch.no_grad():
        logits = clf.model.cls_head(torch.from_numpy(clf.features(video)))
    assert np.allclose(logits.softmax(1).mean(0), clf(video).all_scores, atol=1e-6)


def test_shapes_are_views_times_places(clf: VideoClassifier, tiny_videos: Path) -> None:
    video = tiny_videos / '0.mp4'
    shapes: dict[str, tuple[int, ...]] = {
        'cls': (3, 24),
        'patch_mean': (3, 24),
        'frames': (3, 4, 24),
        'tokens': (3, 4, 2, 2, 24),
    }
    for out, shape in shapes.items():
        assert clf.features(video, out).shape == shape
        assert clf.features(video, out, layers=[0, 1, -1]).shape == (3, *shape)
        assert clf.features(video, out, layers=1).shape == shape


def test_means_are_means_of_tokens(clf: VideoClassifier, tiny_videos: Path) -> None:
    video = tiny_videos / '0.mp4'
    tokens = clf.features(video, 'tokens')
    assert np.allclose(clf.features(video, 'frames'), tokens.mean((2, 3)), atol=1e-6)
    assert np.allclose(clf.features(video, 'patch_mean'), tokens.mean((1, 2, 3)), atol=1e-6)


def test_the_last_layer_before_the_norm_is_the_output_after_it(
    clf: VideoClassifier, tiny_videos: Path, scheme: str
) -> None:
    clf.model.backbone = type(clf.model.backbone)(
        num_frames=4, img_size=32, patch_size=16, embed_dims=24, num_layers=2, num_heads=2,
        attention_type=scheme, temporal_init='random',
    ).eval()  # fmt: skip
    video = tiny_videos / '0.mp4'
    for out in ('cls', 'tokens'):
        before, after = clf.features(video, out, layers=-1), clf.features(video, out)
        with torch.no_grad():
            assert np.allclose(clf.model.backbone.norm(torch.from_numpy(before)), after, atol=1e-5)


def test_labels_stay_what_they_were(clf: VideoClassifier, tiny_videos: Path) -> None:
    video = tiny_videos / '0.mp4'
    before = clf(video).all_scores
    clf.features(video, 'tokens', layers=[1])
    assert clf.model.backbone.out_type == 'cls_token'
    assert np.array_equal(clf(video).all_scores, before)


def test_many_come_by_name_without_the_unreadable(
    clf: VideoClassifier, tiny_videos: Path, tmp_path: Path
) -> None:
    (tmp_path / 'no.mp4').write_bytes(b'')
    files = [str(tiny_videos / '0.mp4'), str(tmp_path / 'no.mp4'), str(tiny_videos / '1.mp4')]
    with pytest.warns(UserWarning, match='no.mp4 is skipped: is an empty file'):
        found = clf.features(files)
    assert list(found) == [files[0], files[2]]
    assert np.allclose(found[files[2]], clf.features(files[2]), atol=1e-6)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'out': 'class'}, "out='class' is not known; give one of cls, patch_mean"),
        ({'layers': 3}, 'there is no layer 3; the model has 2'),
        ({'layers': [0, -4]}, 'there is no layer -4'),
    ],
)
def test_features_that_there_are_not_are_told(
    clf: VideoClassifier, tiny_videos: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        clf.features(tiny_videos / '0.mp4', **arguments)
