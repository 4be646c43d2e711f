"""The backbone inside MMAction2's recognizer, head and data preprocessor."""

from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope

from mmtimesformer.compat.data_samples import scores_of


@pytest.fixture
def recognizer(tiny_backbone_cfg: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmaction'):
        return MODELS.build(
            dict(
                type='Recognizer3D',
                backbone=dict(tiny_backbone_cfg, attention_type=request.param),
                cls_head=dict(
                    type='TimeSformerHead', num_classes=5, in_channels=28, average_clips='prob'
                ),
                data_preprocessor=dict(
                    type='ActionDataPreprocessor',
                    mean=[127.5, 127.5, 127.5],
                    std=[127.5, 127.5, 127.5],
                    format_shape='NCTHW',
                ),
            )
        )


@pytest.mark.parametrize(
    'recognizer', ['divided_space_time', 'joint_space_time', 'space_only'], indirect=True
)
def test_it_trains_on_a_clip_and_predicts_over_three_views(recognizer: Any) -> None:
    from mmaction.structures import ActionDataSample

    def batch(views: int) -> dict[str, Any]:
        sample = ActionDataSample()
        if hasattr(sample, 'set_gt_label'):
            sample.set_gt_label(3)
        else:
            sample.set_gt_labels(3)
        return dict(
            inputs=[torch.randint(0, 256, (views, 3, 3, 16, 40), dtype=torch.uint8)],
            data_samples=[sample],
        )

    losses = recognizer(**recognizer.data_preprocessor(batch(1), training=True), mode='loss')
    losses['loss_cls'].backward()
    assert all(parameter.grad is not None for parameter in recognizer.parameters())

    recognizer.eval()
    with torch.no_grad():
        (result,) = recognizer(**recognizer.data_preprocessor(batch(3)), mode='predict')
    scores = scores_of(result)
    assert scores.shape == (5,)
    assert scores.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('recognizer', ['divided_space_time'], indirect=True)
def test_max_testing_views_bounds_the_views_that_run_together(recognizer: Any) -> None:
    views = recognizer.data_preprocessor(
        dict(inputs=[torch.randint(0, 256, (3, 3, 3, 16, 40), dtype=torch.uint8)], data_samples=[])
    )['inputs']
    together: list[int] = []
    recognizer.eval()
    recognizer.backbone.register_forward_pre_hook(lambda _, video: together.append(len(video[0])))
    with torch.no_grad():
        (all_at_once, _) = recognizer.extract_feat(views, test_mode=True)
        recognizer.test_cfg = dict(max_testing_views=2)
        (in_parts, _) = recognizer.extract_feat(views, test_mode=True)
    assert together == [3, 2, 1]
    assert torch.allclose(all_at_once, in_parts, atol=1e-6)
