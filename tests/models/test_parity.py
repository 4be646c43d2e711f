"""Same weights, same numbers: ours against Hugging Face's and MMAction2's implementations.

The weights travel by the renaming rules below, written down here independently of the package's
own key tables.
"""

import re
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmtimesformer import TimeSformer

TOY = dict(img_size=32, num_frames=3, embed_dims=24, num_layers=3, num_heads=4, patch_size=8)
B = dict(img_size=224, num_frames=8, embed_dims=768, num_layers=12, num_heads=12, patch_size=16)

FROM_HUGGING_FACE = [
    (r'^timesformer\.embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
    (r'^timesformer\.embeddings\.position_embeddings', 'pos_embed'),
    (r'^timesformer\.embeddings\.time_embeddings', 'time_embed'),
    (r'^timesformer\.embeddings\.cls_token', 'cls_token'),
    (r'^timesformer\.layernorm', 'norm'),
    (r'^timesformer\.encoder\.layer\.', 'blocks.'),
    (r'temporal_attention\.attention\.qkv', 'temporal_attn.qkv'),
    (r'temporal_attention\.output\.dense', 'temporal_attn.proj'),
    (r'attention\.attention\.qkv', 'attn.qkv'),
    (r'attention\.output\.dense', 'attn.proj'),
    (r'temporal_layernorm', 'temporal_norm1'),
    (r'temporal_dense', 'temporal_fc'),
    (r'layernorm_before', 'norm1'),
    (r'layernorm_after', 'norm2'),
    (r'intermediate\.dense', 'mlp.fc1'),
    (r'output\.dense', 'mlp.fc2'),
    (r'^classifier', 'head'),
]
FROM_MMACTION2 = [
    (r'^patch_embed\.projection', 'patch_embed.proj'),
    (r'^transformer_layers\.layers\.', 'blocks.'),
    (r'attn\.in_proj_', 'attn.qkv.'),
    (r'attn\.out_proj', 'attn.proj'),
    (r'ffns\.0\.layers\.0\.0', 'mlp.fc1'),
    (r'ffns\.0\.layers\.1', 'mlp.fc2'),
    (r'ffns\.0\.norm', 'norm2'),
    (r'norms\.0', 'norm1'),
    (r'norms\.1', 'norm2'),
]
DIVIDED_IN_MMACTION2 = [
    (r'attentions\.0\.norm', 'temporal_norm1'),
    (r'attentions\.0\.attn', 'temporal_attn'),
    (r'attentions\.0\.temporal_fc', 'temporal_fc'),
    (r'attentions\.1\.norm', 'norm1'),
    (r'attentions\.1\.attn', 'attn'),
]
PLAIN_IN_MMACTION2 = [(r'attentions\.0\.attn', 'attn')]


def rename(tensors: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed


class Classifier(nn.Module):
    """Our backbone and a linear head, with the official names."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__()
        self.backbone = TimeSformer(drop_path_rate=0.0, **kwargs)
        self.head = nn.Linear(kwargs['embed_dims'], num_classes)

    def forward(self, video: Tensor) -> Tensor:
        return self.head(self.backbone(video))


def randomise(module: nn.Module) -> nn.Module:
    """Draw every parameter, also those that are initialized to zero or one."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 100
        parameter.data = noise / fan_in**0.5 + (parameter.ndim == 1) * 0.5
    return module


def hugging_face(size: dict[str, Any], scheme: str) -> tuple[nn.Module, list]:
    transformers = pytest.importorskip('transformers')
    config = transformers.TimesformerConfig(
        image_size=size['img_size'],
        patch_size=size['patch_size'],
        num_frames=size['num_frames'],
        hidden_size=size['embed_dims'],
        num_hidden_layers=size['num_layers'],
        num_attention_heads=size['num_heads'],
        intermediate_size=4 * size['embed_dims'],
        attention_type=scheme,
        num_labels=5,
    )
    return transformers.TimesformerForVideoClassification(config), FROM_HUGGING_FACE


class MMAction2Classifier(nn.Module):
    def __init__(self, size: dict[str, Any], scheme: str) -> None:
        super().__init__()
        from mmaction.models import TimeSformer as Theirs
        from mmaction.models import TimeSformerHead

        names = {**size, 'num_transformer_layers': size['num_layers']}
        del names['num_layers']
        with DefaultScope.overwrite_default_scope('mmaction'):
            self.backbone = Theirs(attention_type=scheme, **names)
            self.head = TimeSformerHead(num_classes=5, in_channels=size['embed_dims']).fc_cls

    def forward(self, video: Tensor) -> Tensor:
        return self.head(self.backbone(video))


def mmaction2(size: dict[str, Any], scheme: str) -> tuple[nn.Module, list]:
    divided = scheme == 'divided_space_time'
    rules = [(r'^backbone\.', ''), *FROM_MMACTION2]
    rules += DIVIDED_IN_MMACTION2 if divided else PLAIN_IN_MMACTION2
    return MMAction2Classifier(size, scheme), rules


PEERS = [
    pytest.param(hugging_face, 'divided_space_time', id='hugging_face-divided'),
    pytest.param(hugging_face, 'joint_space_time', id='hugging_face-joint'),
    pytest.param(mmaction2, 'divided_space_time', id='mmaction2-divided'),
    pytest.param(mmaction2, 'joint_space_time', id='mmaction2-joint'),
    pytest.param(mmaction2, 'space_only', id='mmaction2-space'),
]


def same_weights(peer: Any, size: dict[str, Any], scheme: str) -> tuple[nn.Module, nn.Module, list]:
    theirs, rules = peer(size, scheme)
    randomise(theirs).eval()
    ours = Classifier(5, attention_type=scheme, **size).eval()
    weights = rename(theirs.state_dict(), rules)
    missing = ours.load_state_dict(
        {k if k.startswith('head.') else f'backbone.{k}': v for k, v in weights.items()}
    )
    assert not missing.missing_keys and not missing.unexpected_keys
    return ours, theirs, rules


def logits_of(model: nn.Module, video: Tensor) -> Tensor:
    if type(model).__module__.startswith('transformers'):
        return model(video.transpose(1, 2)).logits  # they take (b, t, c, H, W)
    return model(video)


def assert_same(
    peer: Any, size: dict[str, Any], scheme: str, batch: int, gradients: bool = True
) -> None:
    ours, theirs, rules = same_weights(peer, size, scheme)
    video = torch.randn(batch, 3, size['num_frames'], size['img_size'], size['img_size'])
    with torch.set_grad_enabled(gradients):
        our_logits, their_logits = logits_of(ours, video), logits_of(theirs, video)
    assert their_logits.std() > 0.1, 'logits that hardly differ would hide a difference'
    torch.testing.assert_close(our_logits, their_logits, rtol=0, atol=1e-5)
    if not gradients:
        return

    direction = torch.randn(our_logits.shape)
    (our_logits * direction).sum().backward()
    (their_logits * direction).sum().backward()
    expected = rename({k: p.grad for k, p in theirs.named_parameters()}, rules)
    for name, parameter in ours.named_parameters():
        reference = expected[name.removeprefix('backbone.')]
        difference = (parameter.grad - reference).norm() / reference.norm()
        assert difference < 1e-5, f'{name}: gradients differ by {difference:.1e}'


@pytest.mark.parametrize(('peer', 'scheme'), PEERS)
def test_a_toy_has_the_logits_and_gradients_of_the_peer(peer: Any, scheme: str) -> None:
    assert_same(peer, TOY, scheme, batch=2)


# A toy has the logits of all of them: at full size one is enough for `make test`.
ONE_IS_FAST = [
    PEERS[0],
    *(pytest.param(*peer.values, id=peer.id, marks=pytest.mark.slow) for peer in PEERS[1:]),
]


@pytest.mark.parametrize(('peer', 'scheme'), ONE_IS_FAST)
def test_size_b_has_the_logits_of_the_peer(peer: Any, scheme: str) -> None:
    assert_same(peer, B, scheme, batch=1, gradients=False)


@pytest.mark.slow
@pytest.mark.parametrize(('peer', 'scheme'), PEERS)
def test_size_b_has_the_gradients_of_the_peer(peer: Any, scheme: str) -> None:
    assert_same(peer, B, scheme, batch=1)


@pytest.mark.parametrize(
    ('scheme', 'count'),
    [
        ('divided_space_time', 121_566_352),
        ('joint_space_time', 86_112_400),
        ('space_only', 86_106_256),
    ],
)
def test_size_b_with_400_classes_has_the_published_number_of_parameters(
    scheme: str, count: int
) -> None:
    with torch.device('meta'):
        model = Classifier(400, embed_dims=768, attention_type=scheme)
    assert sum(p.numel() for p in model.parameters()) == count
