"""Toy weights, and the same weights laid out by hand as each other system lays them out.

The layouts are written down here a second time, block by block, without the tables under test.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmtimesformer import TimeSformer

WIDTH, HEADS, DEPTH, PATCH, GRID, CLASSES, FRAMES = 20, 4, 2, 5, 3, 7, 3
SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')


class Recognizer(nn.Module):
    """Names and shapes of MMAction2's Recognizer3D with a TimeSformerHead."""

    def __init__(self, num_classes: int = CLASSES, **backbone: Any) -> None:
        super().__init__()
        self.backbone = TimeSformer(**toy(**backbone))
        self.cls_head = nn.Module()
        self.cls_head.fc_cls = nn.Linear(self.backbone.norm.weight.shape[0], num_classes)

    def forward(self, video: Tensor) -> Tensor:
        return self.cls_head.fc_cls(self.backbone(video))


def toy(**changes: Any) -> dict[str, Any]:
    return {
        'num_frames': FRAMES,
        'img_size': PATCH * GRID,
        'patch_size': PATCH,
        'embed_dims': WIDTH,
        'num_layers': DEPTH,
        'num_heads': HEADS,
        'drop_path_rate': 0.0,
        **changes,
    }


def random_weights(
    attention_type: str = 'divided_space_time',
    *,
    head: bool = True,
    width: int = WIDTH,
    depth: int = DEPTH,
    patch: int = PATCH,
    grid: int = GRID,
    qkv_bias: bool = True,
) -> dict[str, Tensor]:
    """A complete model under the official names, every tensor different from every other."""
    generator = torch.Generator().manual_seed(7)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.3

    weights = {
        'cls_token': rand(1, 1, width),
        'pos_embed': rand(1, 1 + grid * grid, width),
        'patch_embed.proj.weight': rand(width, 3, patch, patch),
        'patch_embed.proj.bias': rand(width),
    }
    if attention_type != 'space_only':
        weights['time_embed'] = rand(1, FRAMES, width)
    for i in range(depth):
        block = f'blocks.{i}.'
        for prefix in ('temporal_', '') if attention_type == 'divided_space_time' else ('',):
            weights[f'{block}{prefix}norm1.weight'] = rand(width)
            weights[f'{block}{prefix}norm1.bias'] = rand(width)
            weights[f'{block}{prefix}attn.qkv.weight'] = rand(3 * width, width)
            if qkv_bias:
                weights[f'{block}{prefix}attn.qkv.bias'] = rand(3 * width)
            weights[f'{block}{prefix}attn.proj.weight'] = rand(width, width)
            weights[f'{block}{prefix}attn.proj.bias'] = rand(width)
        if attention_type == 'divided_space_time':
            weights[f'{block}temporal_fc.weight'] = rand(width, width)
            weights[f'{block}temporal_fc.bias'] = rand(width)
        weights[f'{block}norm2.weight'] = rand(width)
        weights[f'{block}norm2.bias'] = rand(width)
        weights[f'{block}mlp.fc1.weight'] = rand(4 * width, width)
        weights[f'{block}mlp.fc1.bias'] = rand(4 * width)
        weights[f'{block}mlp.fc2.weight'] = rand(width, 4 * width)
        weights[f'{block}mlp.fc2.bias'] = rand(width)
    weights['norm.weight'] = rand(width)
    weights['norm.bias'] = rand(width)
    if head:
        weights['head.weight'] = rand(CLASSES, width)
        weights['head.bias'] = rand(CLASSES)
    return weights


def is_time(name: str) -> bool:
    return name == 'time_embed' or '.temporal_' in name


def of_images(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if not is_time(name)}


# -- the layouts, by hand ----------------------------------------------------------------------


def as_official(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f'model.{name}': tensor for name, tensor in weights.items()}


def as_mmaction2(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """`attentions.0` is temporal where there are two, and the only one where there is one."""
    divided = any('temporal_fc' in name for name in weights)
    out = {}
    for name, tensor in weights.items():
        if name.startswith('head.'):
            out[f'cls_head.fc_cls.{name[5:]}'] = tensor
            continue
        if not name.startswith('blocks.'):
            out['backbone.' + name.replace('patch_embed.proj.', 'patch_embed.projection.')] = tensor
            continue
        _, i, rest = name.split('.', 2)
        which = 0 if rest.startswith('temporal_') or not divided else 1
        rest, leaf = rest.removeprefix('temporal_').rsplit('.', 1)
        norms = (
            {'norm1': f'attentions.{which}.norm', 'norm2': 'ffns.0.norm'}
            if divided
            else {'norm1': 'norms.0', 'norm2': 'norms.1'}
        )
        new = {
            **{key: f'{value}.{leaf}' for key, value in norms.items()},
            'attn.qkv': f'attentions.{which}.attn.in_proj_{leaf}',
            'attn.proj': f'attentions.{which}.attn.out_proj.{leaf}',
            'fc': f'attentions.0.temporal_fc.{leaf}',
            'mlp.fc1': f'ffns.0.layers.0.0.{leaf}',
            'mlp.fc2': f'ffns.0.layers.1.{leaf}',
        }[rest]
        out[f'backbone.transformer_layers.layers.{i}.{new}'] = tensor
    return out


def as_huggingface(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in weights.items():
        if name.startswith('head.'):
            out[f'classifier.{name[5:]}'] = tensor
            continue
        top = {
            'cls_token': 'embeddings.cls_token',
            'pos_embed': 'embeddings.position_embeddings',
            'time_embed': 'embeddings.time_embeddings',
            'patch_embed.proj.weight': 'embeddings.patch_embeddings.projection.weight',
            'patch_embed.proj.bias': 'embeddings.patch_embeddings.projection.bias',
            'norm.weight': 'layernorm.weight',
            'norm.bias': 'layernorm.bias',
        }
        if name in top:
            out[f'timesformer.{top[name]}'] = tensor
            continue
        _, i, rest = name.split('.', 2)
        rest, leaf = rest.rsplit('.', 1)
        new = {
            'norm1': 'layernorm_before',
            'norm2': 'layernorm_after',
            'attn.qkv': 'attention.attention.qkv',
            'attn.proj': 'attention.output.dense',
            'temporal_norm1': 'temporal_layernorm',
            'temporal_attn.qkv': 'temporal_attention.attention.qkv',
            'temporal_attn.proj': 'temporal_attention.output.dense',
            'temporal_fc': 'temporal_dense',
            'mlp.fc1': 'intermediate.dense',
            'mlp.fc2': 'output.dense',
        }[rest]
        out[f'timesformer.encoder.layer.{i}.{new}.{leaf}'] = tensor
    return out


def as_paddle(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Linear layers keep their matrix as (in, out); nothing else is turned."""
    out: dict[str, Any] = {}
    for name, tensor in weights.items():
        linear = name.endswith('.weight') and tensor.ndim == 2
        array = tensor.numpy().T if linear else tensor.numpy()
        place = f'head.fc.{name[5:]}' if name.startswith('head.') else f'backbone.{name}'
        out[place] = np.ascontiguousarray(array)
    out['StructuredToParameterName@@'] = {name: f'param_{i}' for i, name in enumerate(out)}
    return out


def as_paddle_vit(weights: dict[str, Tensor]) -> dict[str, Any]:
    """PaddleClas' image ViT: timm's names, Linear layers as (in, out)."""
    laid_out = as_paddle(of_images(weights))
    del laid_out['StructuredToParameterName@@']
    out = {
        name.removeprefix('backbone.').replace('head.fc.', 'head.'): array
        for name, array in laid_out.items()
    }
    return {**out, 'StructuredToParameterName@@': {name: f'{name}_0' for name in out}}


def as_jax(weights: dict[str, Tensor], heads: int = HEADS, big_vision: bool = False) -> Any:
    """Flax: kernels are (in, out), attention keeps (in, head, channel) apart."""
    width = weights['cls_token'].shape[-1]
    c = width // heads
    attention, norm2, mlp = 'MultiHeadDotProductAttention_1', 'LayerNorm_2', 'MlpBlock_3'
    if big_vision:
        attention, norm2, mlp = 'MultiHeadDotProductAttention_0', 'LayerNorm_1', 'MlpBlock_0'
    w = {name: tensor.numpy() for name, tensor in of_images(weights).items()}
    out = {
        'cls': w['cls_token'],
        'embedding/kernel': np.einsum('oihw->hwio', w['patch_embed.proj.weight']),
        'embedding/bias': w['patch_embed.proj.bias'],
        'Transformer/encoder_norm/scale': w['norm.weight'],
        'Transformer/encoder_norm/bias': w['norm.bias'],
        'pre_logits/kernel': np.zeros((width, width), np.float32),
        'pre_logits/bias': np.zeros(width, np.float32),
    }
    if big_vision:
        out['pos_embedding'] = w['pos_embed'][:, 1:]
    else:
        out['Transformer/posembed_input/pos_embedding'] = w['pos_embed']
    if 'head.weight' in w:
        out['head/kernel'] = np.einsum('oi->io', w['head.weight'])
        out['head/bias'] = w['head.bias']
    depth = 1 + max(int(name.split('.')[1]) for name in w if name.startswith('blocks.'))
    for i in range(depth):
        ours, theirs = f'blocks.{i}.', f'Transformer/encoderblock_{i}/'
        for norm, name in (('norm1', 'LayerNorm_0'), ('norm2', norm2)):
            out[f'{theirs}{name}/scale'] = w[f'{ours}{norm}.weight']
            out[f'{theirs}{name}/bias'] = w[f'{ours}{norm}.bias']
        for j, part in enumerate(('query', 'key', 'value')):
            matrix = w[f'{ours}attn.qkv.weight'][j * width : (j + 1) * width]
            bias = w[f'{ours}attn.qkv.bias'][j * width : (j + 1) * width]
            kernel = np.empty((width, heads, c), np.float32)
            for h in range(heads):
                kernel[:, h, :] = matrix[h * c : (h + 1) * c, :].T
            out[f'{theirs}{attention}/{part}/kernel'] = kernel
            out[f'{theirs}{attention}/{part}/bias'] = bias.reshape(heads, c)
        kernel = np.empty((heads, c, width), np.float32)
        for h in range(heads):
            kernel[h] = w[f'{ours}attn.proj.weight'][:, h * c : (h + 1) * c].T
        out[f'{theirs}{attention}/out/kernel'] = kernel
        out[f'{theirs}{attention}/out/bias'] = w[f'{ours}attn.proj.bias']
        for dense, fc in (('Dense_0', 'fc1'), ('Dense_1', 'fc2')):
            out[f'{theirs}{mlp}/{dense}/kernel'] = w[f'{ours}mlp.{fc}.weight'].T
            out[f'{theirs}{mlp}/{dense}/bias'] = w[f'{ours}mlp.{fc}.bias']
    return {key: np.ascontiguousarray(array) for key, array in out.items()}


def as_scanned(jax: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All blocks in one array each, stacked along a leading axis."""
    stacks: dict[str, dict[int, np.ndarray]] = {}
    out = {}
    for key, array in jax.items():
        if 'encoderblock_' not in key:
            out[key] = array
            continue
        before, after = key.split('encoderblock_')
        number, rest = after.split('/', 1)
        stacks.setdefault(f'{before}encoderblock/{rest}', {})[int(number)] = array
    for key, arrays in stacks.items():
        out[key] = np.stack([arrays[i] for i in range(len(arrays))])
    return out


def as_huggingface_vit(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in as_huggingface(of_images(weights)).items():
        name = name.replace('timesformer.', 'vit.')
        if '.qkv.' in name:
            for part, third in zip(('query', 'key', 'value'), tensor.chunk(3), strict=True):
                out[name.replace('.qkv.', f'.{part}.')] = third.clone()
        else:
            out[name] = tensor
    out['vit.pooler.dense.weight'] = torch.zeros(WIDTH, WIDTH)
    out['vit.pooler.dense.bias'] = torch.zeros(WIDTH)
    return out


def as_mmpretrain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in of_images(weights).items():
        if name.startswith('head.'):
            out[f'head.layers.head.{name[5:]}'] = tensor
        elif name.startswith('norm.'):
            out[f'backbone.ln1.{name[5:]}'] = tensor
        else:
            for old, new in (
                ('patch_embed.proj.', 'patch_embed.projection.'),
                ('blocks.', 'layers.'),
                ('.norm1.', '.ln1.'),
                ('.norm2.', '.ln2.'),
                ('.mlp.fc1.', '.ffn.layers.0.0.'),
                ('.mlp.fc2.', '.ffn.layers.1.'),
            ):
                name = name.replace(old, new)
            out[f'backbone.{name}'] = tensor
    return out


# -- and as files ------------------------------------------------------------------------------

Writer = Callable[[dict[str, Tensor], Path], None]


def _torch(content: Any, path: Path) -> None:
    torch.save(content, path)


def _write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _write_npz(arrays: dict[str, np.ndarray], path: Path) -> None:
    with path.open('wb') as file:
        np.savez(file, **arrays)


def _write_paddle(weights: dict[str, Tensor], path: Path, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(as_paddle(weights), protocol=protocol))


VIDEO_FILES: dict[str, Writer] = {
    'mmtimesformer': lambda w, path: _torch(
        {
            'meta': {},
            'state_dict': {
                (f'cls_head.fc_cls.{k[5:]}' if k.startswith('head.') else f'backbone.{k}'): v
                for k, v in w.items()
            },
        },
        path,
    ),
    'official': lambda w, path: _torch(
        {
            'epoch': 14,
            'model_state': as_official(w),
            'optimizer_state': {'state': {0: {'momentum_buffer': torch.ones(2)}}},
            'cfg': 'DATA:\n  NUM_FRAMES: 3\n',
        },
        path,
    ),
    'mmaction2': lambda w, path: _torch(
        {'meta': {'epoch': 15}, 'state_dict': as_mmaction2(w)}, path
    ),
    'huggingface': lambda w, path: _write_safetensors(as_huggingface(w), path),
    'huggingface bin': lambda w, path: _torch(as_huggingface(w), path),
    'huggingface without prefix': lambda w, path: _write_safetensors(
        {
            name.removeprefix('timesformer.'): tensor
            for name, tensor in as_huggingface(w).items()
            if not name.startswith('classifier.')
        },
        path,
    ),
    'paddle': _write_paddle,
    'paddle protocol 2': lambda w, path: _write_paddle(w, path, protocol=2),
}
IMAGE_FILES: dict[str, Writer] = {
    'timm safetensors': lambda w, path: _write_safetensors(of_images(w), path),
    'timm bin': lambda w, path: _torch(of_images(w), path),
    'timm in parallel': lambda w, path: _torch(
        {'state_dict': {f'module.{name}': tensor for name, tensor in of_images(w).items()}}, path
    ),
    'jax': lambda w, path: _write_npz(as_jax(w), path),
    'jax with optimiser': lambda w, path: _write_npz(
        {f'opt/target/{k}': v for k, v in as_jax(w).items()} | {'opt/state/step': np.array(3)}, path
    ),
    'big_vision': lambda w, path: _write_npz(
        {f'params/{k}': v for k, v in as_jax(w, big_vision=True).items()}, path
    ),
    'big_vision scanned': lambda w, path: _write_npz(
        {f'params/{k}': v for k, v in as_scanned(as_jax(w, big_vision=True)).items()}, path
    ),
    'paddle_vit': lambda w, path: path.write_bytes(pickle.dumps(as_paddle_vit(w), protocol=4)),
    'paddle_vit base': lambda w, path: path.write_bytes(
        pickle.dumps(
            {k: v for k, v in as_paddle_vit(w).items() if not k.startswith('head.')}, protocol=2
        )
    ),
    'huggingface_vit': lambda w, path: _write_safetensors(as_huggingface_vit(w), path),
    'huggingface_vit base': lambda w, path: _torch(
        {
            k.removeprefix('vit.'): v
            for k, v in as_huggingface_vit(w).items()
            if 'classifier' not in k
        },
        path,
    ),
    'mmpretrain': lambda w, path: _torch({'meta': {}, 'state_dict': as_mmpretrain(w)}, path),
    'mmaction2_vit': lambda w, path: _torch(
        {
            k.removeprefix('backbone.'): v
            for k, v in as_mmaction2(of_images(w)).items()
            if not k.startswith('cls_head')
        },
        path,
    ),
}


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that only exists if a checkpoint has run code."""
    return tmp_path / 'executed'
