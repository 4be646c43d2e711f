"""bfloat16 computes on the CPU, keeps float32 where it must, and does not leak."""

from typing import Any

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn

from mmtimesformer.engine.optim import amp as precision
from mmtimesformer.engine.optim.amp import Bfloat16OptimWrapper, keep_scores_in_float32


class Recognizer(nn.Module):
    """A backbone and a head, as an MMAction2 recogniser has them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 8)
        self.cls_head = nn.Linear(8, 3)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor]:
        features = self.backbone(video)
        return features, self.cls_head(features)


def wrap(model: nn.Module, **options: Any) -> Bfloat16OptimWrapper:
    return Bfloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_the_model_computes_in_bfloat16_and_its_scores_are_float32() -> None:
    model = Recognizer()
    wrapper = wrap(model)
    wrapper.initialize_count_status(model, 0, 10)
    with wrapper.optim_context(model):
        features, scores = model(torch.rand(2, 4))
    assert features.dtype == torch.bfloat16
    assert scores.dtype == torch.float32
    assert model(torch.rand(2, 4))[0].dtype == torch.float32  # outside, nothing is left of it


def test_weights_and_gradients_stay_float32_and_learn() -> None:
    model = Recognizer()
    wrapper = wrap(model, clip_grad={'max_norm': 40})
    video, labels = torch.rand(8, 4), torch.arange(8) % 3
    losses = []
    for _ in range(20):
        with wrapper.optim_context(model):
            loss = nn.functional.cross_entropy(model(video)[1].float(), labels)
        wrapper.update_params(loss)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_accumulated_batches_make_one_step() -> None:
    model = Recognizer()
    wrapper = wrap(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    before = model.backbone.weight.clone()
    for step in range(2):
        with wrapper.optim_context(model):
            loss = model(torch.rand(2, 4))[1].sum()
        wrapper.update_params(loss)
        assert torch.equal(before, model.backbone.weight) == (step == 0)


def test_scores_are_kept_once_however_often_it_is_asked() -> None:
    model = Recognizer()
    for _ in range(3):
        keep_scores_in_float32(model)
    assert len(model.cls_head._forward_hooks) == 1


def test_it_is_found_by_its_name(default_scope: str | None) -> None:
    model = Recognizer()
    built = OPTIM_WRAPPERS.build(
        {
            'type': 'mmtimesformer.Bfloat16OptimWrapper',
            'optimizer': torch.optim.SGD(model.parameters(), lr=0.1),
        }
    )
    assert isinstance(built, Bfloat16OptimWrapper)


def test_bf16_takes_the_place_of_fp16() -> None:
    cfg = ConfigDict(
        optim_wrapper={
            'type': 'AmpOptimWrapper', 'loss_scale': 'dynamic', 'clip_grad': {'max_norm': 40}
        }
    )  # fmt: skip
    precision.train_in('bf16', cfg)
    assert cfg.optim_wrapper == {
        'type': 'mmtimesformer.Bfloat16OptimWrapper', 'clip_grad': {'max_norm': 40}
    }  # fmt: skip


def test_fp16_is_mmengines_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, 'get_device', lambda: 'cuda')
    cfg = ConfigDict(optim_wrapper={'type': 'OptimWrapper'})
    precision.train_in('fp16', cfg)
    assert cfg.optim_wrapper == {'type': 'AmpOptimWrapper', 'loss_scale': 'dynamic'}


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_bfloat16_computes_on_a_gpu() -> None:
    model = Recognizer().cuda()
    with wrap(model).optim_context(model):
        assert model(torch.rand(2, 4, device='cuda'))[0].dtype == torch.bfloat16
