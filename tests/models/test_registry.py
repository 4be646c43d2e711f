"""Parts are found by name, with and without MMAction2's scope, and can be replaced by one's own."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from torch import Tensor, nn

from mmtimesformer import TimeSformer
from mmtimesformer.models import FFN, DividedSpaceTimeBlock, SelfAttention
from mmtimesformer.registry import MODELS

PARTS = [
    'TimeSformer', 'SelfAttention', 'FFN', 'DividedSpaceTimeBlock', 'JointSpaceTimeBlock',
    'SpaceOnlyBlock',
]  # fmt: skip


@MODELS.register_module()
class GatedFFN(nn.Module):
    """A user's own FFN."""

    def __init__(self, embed_dims: int, feedforward_channels: int, drop_rate: float) -> None:
        super().__init__()
        self.gate = nn.Linear(embed_dims, feedforward_channels)
        self.value = nn.Linear(embed_dims, feedforward_channels)
        self.out = nn.Linear(feedforward_channels, embed_dims)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.gate(tokens).sigmoid() * self.value(tokens))


@MODELS.register_module()
class ScaledAttention(SelfAttention):
    """A user's own attention."""

    def __init__(self, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.scale * super().forward(tokens)


@MODELS.register_module()
class TimeAfterSpaceBlock(DividedSpaceTimeBlock):
    """A user's own block: the other order of the two steps."""

    def forward(self, frames: Tensor, t: int) -> Tensor:
        frames = frames + self.attend_space(frames)
        frames = frames + self.attend_time(frames)
        return frames + self.drop_path(self.mlp(self.norm2(frames)))


@pytest.mark.parametrize('part', PARTS)
def test_every_part_is_found_by_its_prefixed_name(part: str, default_scope: str | None) -> None:
    assert MODELS.get(f'mmtimesformer.{part}').__name__ == part
    assert ROOT.get(f'mmtimesformer.{part}').__module__.startswith('mmtimesformer.')


def test_the_backbone_is_made_of_our_parts_in_any_scope(
    default_scope: str | None, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = ROOT.build(tiny_backbone_cfg)
    assert type(model) is TimeSformer
    assert type(model.blocks[0]) is DividedSpaceTimeBlock
    assert type(model.blocks[0].attn) is type(model.blocks[0].temporal_attn) is SelfAttention
    assert type(model.blocks[0].mlp) is FFN


@pytest.mark.parametrize(
    ('changes', 'names'),
    [
        (dict(block_cfg=dict(type='mmtimesformer.TimeAfterSpaceBlock')), []),
        (dict(ffn_cfg=dict(type='mmtimesformer.GatedFFN')), ['blocks.1.mlp.gate.weight']),
        (
            dict(attn_cfg=dict(type='mmtimesformer.ScaledAttention', scale=0.5)),
            ['blocks.0.attn.scale', 'blocks.1.temporal_attn.scale'],
        ),
    ],
    ids=['block', 'ffn', 'attention'],
)
def test_a_part_of_ones_own_takes_the_place_of_ours_and_learns(
    changes: dict[str, Any],
    names: list[str],
    default_scope: str | None,
    tiny_backbone_cfg: dict[str, Any],
) -> None:
    ours = ROOT.build(dict(tiny_backbone_cfg, temporal_init='random'))
    model = ROOT.build({**tiny_backbone_cfg, 'temporal_init': 'random', **changes})
    assert set(names) <= set(model.state_dict()), 'the parts of the config must be in the model'
    if not names:
        model.load_state_dict(ours.state_dict())
        video = torch.randn(1, 3, 3, 16, 40)
        assert (model(video) - ours(video)).abs().max() > 1e-5

    # Two classes that differ in one bright patch; a few steps must separate them.
    head = nn.Linear(28, 2)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=3e-3)
    videos = 0.1 * torch.randn(8, 3, 3, 16, 40)
    videos[4:, :, 1, :8, 16:24] += 2
    labels = torch.arange(8) // 4
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(head(model(videos)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_the_package_imports_neither_mmaction_nor_a_video_reader() -> None:
    heavy = ('mmaction', 'mmcv', 'decord', 'av', 'torchvision')
    code = f'import sys, mmtimesformer; print([name for name in {heavy!r} if name in sys.modules])'
    assert run_python(code).endswith('[]')


def test_the_model_works_where_only_the_core_requirements_are() -> None:
    """Without MMAction2, mmcv, OpenCV and video readers: ``None`` makes an import fail."""
    code = """
import sys
sys.modules.update(dict.fromkeys(['mmaction', 'mmcv', 'cv2', 'decord', 'av', 'safetensors']))
import torch, mmtimesformer
model = mmtimesformer.TimeSformer(embed_dims=8, num_heads=2, num_layers=1, img_size=32)
print(tuple(model(torch.rand(1, 3, 8, 32, 32)).shape))
"""
    assert run_python(code).endswith('(1, 8)')


def test_importing_the_package_repairs_mmaction2_1_2() -> None:
    code = 'import sys, mmtimesformer; print([type(one).__name__ for one in sys.meta_path])'
    assert 'StandInFinder' in run_python(code)


def official_names(layers: int) -> set[str]:
    """The names of the official state dict, spelt out once more."""
    names = {'cls_token', 'pos_embed', 'time_embed', 'patch_embed.proj.weight'}
    names |= {'patch_embed.proj.bias', 'norm.weight', 'norm.bias'}
    for i in range(layers):
        for layer in (
            'norm1', 'attn.qkv', 'attn.proj', 'temporal_norm1', 'temporal_attn.qkv',
            'temporal_attn.proj', 'temporal_fc', 'norm2', 'mlp.fc1', 'mlp.fc2',
        ):  # fmt: skip
            names |= {f'blocks.{i}.{layer}.weight', f'blocks.{i}.{layer}.bias'}
    return names


@pytest.mark.parametrize('scheme', ['divided_space_time', 'joint_space_time', 'space_only'])
def test_the_state_dict_has_exactly_the_official_names(
    scheme: str, tiny_backbone_cfg: dict[str, Any]
) -> None:
    model = ROOT.build(dict(tiny_backbone_cfg, attention_type=scheme))
    expected = official_names(2)
    if scheme != 'divided_space_time':
        expected = {name for name in expected if 'temporal' not in name}
    if scheme == 'space_only':
        expected.remove('time_embed')
    assert set(model.state_dict()) == expected
