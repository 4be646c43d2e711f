"""The TimeSformer backbone: video, tokens, blocks, class token."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from mmtimesformer.models.activation_checkpointing import LEVELS, recompute
from mmtimesformer.models.attention import SelfAttention
from mmtimesformer.models.attention_capture import capture_attention, grid_of, scheme_of
from mmtimesformer.models.attention_maps import AttentionMaps
from mmtimesformer.models.blocks import (
    DividedSpaceTimeBlock,
    JointSpaceTimeBlock,
    SpaceOnlyBlock,
)
from mmtimesformer.models.embeddings import PatchEmbed, init_temporal
from mmtimesformer.models.fewer_tokens import forward_fewer, has_fewer_tokens
from mmtimesformer.models.fused_linear import has_hooks, is_plain, is_recorded
from mmtimesformer.models.mmaction2_arguments import takes_mmaction2_arguments
from mmtimesformer.models.strict_loading import refuse_other_weights
from mmtimesformer.models.track_dropout import check_dropout
from mmtimesformer.models.track_merging import merge_arguments, set_merge
from mmtimesformer.registry import MODELS
from mmtimesformer.resize import resize_positions, resize_times

BLOCKS = {
    'divided_space_time': 'mmtimesformer.DividedSpaceTimeBlock',
    'joint_space_time': 'mmtimesformer.JointSpaceTimeBlock',
    'space_only': 'mmtimesformer.SpaceOnlyBlock',
}
# Bytes. The C library returns larger blocks to the system when they are freed, and the system
# zeroes the next one page by page.
LARGE = 2**25
OUT_TYPES = ('cls_token', 'tokens', 'hidden_states')


@MODELS.register_module()
class TimeSformer(BaseModule):
    """A Vision Transformer whose tokens are patches in space and time.

    From "Is Space-Time Attention All You Need for Video Understanding?" (arXiv 2102.05095).

    The defaults are TimeSformer-B: 8 frames of 224 x 224 pixels, ViT-B/16 in width and depth.
    ViT-S is ``embed_dims=384, num_heads=6``; ViT-L is ``embed_dims=1024, num_layers=24,
    num_heads=16``. State-dict names are the official ones.

    Args:
        num_frames: Frames in a clip that ``time_embed`` is built for. Clips of any other length
            work too: the embeddings are resized.
        img_size: Pixels that ``pos_embed`` is built for, one number or ``(H, W)``. Frames of any
            other size work too, in whole patches.
        patch_size: Side of a patch, in pixels.
        in_channels: Channels of a frame; 3 for RGB.
        embed_dims: Width of a token.
        num_layers: Blocks.
        num_heads: Attention heads; must divide ``embed_dims``.
        mlp_ratio: Width of the MLP in units of ``embed_dims``.
        qkv_bias: Whether queries, keys and values have a bias.
        attention_type: ``'divided_space_time'``, ``'joint_space_time'`` or ``'space_only'``.
        drop_rate: Dropout on the embedded tokens and after each projection, 0 to 1.
        attn_drop_rate: Dropout on the attention weights, 0 to 1.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 in the first.
        norm_eps: Epsilon of the layer norms.
        frozen_stages: Parts that are not trained: -1 for none, 0 for the embeddings, ``k`` for the
            first ``k`` blocks as well; at ``num_layers`` the final norm too.
        with_cp: What to recompute in the backward pass, less memory for more time:
            ``'pointwise'``, ``'projections'``, ``'mlp'``, or ``'block'`` (also ``True``), each of
            which includes those before it, see
            :mod:`~mmtimesformer.models.activation_checkpointing`. ``False``: nothing.
        out_type: What the model returns, see ``Shape``.
        temporal_init: Initial ``time_embed`` and ``temporal_fc``: ``'zero'`` for weights seeded
            from images, ``'random'`` for training from scratch (see
            :func:`~mmtimesformer.models.embeddings.init_temporal`). Of no effect in
            ``space_only``, which has neither.
        embed_init_std: Deviation of the truncated normal from which the class token, the positions
            and, for a random start, the times are drawn. Large models take 0.02; a small one that
            learns from scratch finds order in time sooner when its embeddings are as large as its
            patches, about 1.
        merge: Tokens to merge, such as ``dict(r=8)``: the arguments of
            :func:`~mmtimesformer.models.set_merge`. ``None``: none.
        token_keep: Share of the tracks that a training step keeps, chosen at random; at most 1,
            which keeps all. In evaluation all are kept.
        token_drop_mode: ``'track'``: whole tracks are dropped. ``'tube'`` and ``'frame'``: other
            places in every two frames, or in every frame, see
            :mod:`~mmtimesformer.models.track_dropout`.
        block_cfg: Changes to the blocks: other arguments, or another ``type``.
        attn_cfg: Changes to the attention, likewise.
        ffn_cfg: Changes to the MLP, likewise.
        init_cfg: MMEngine's, for instance a checkpoint to start from.

    The arguments of MMAction2's ``TimeSformer`` are taken too, see
    :mod:`mmtimesformer.models.mmaction2_arguments`.

    Shape:
        - video: ``b c t H W``, normalised, floating point
        - ``out_type='cls_token'``: ``b d``
        - ``out_type='tokens'``: the class token ``b d`` and the map ``b t h w d``
        - ``out_type='hidden_states'``: a tuple of ``num_layers + 1`` such pairs, before the final
          norm: the embedded tokens, then the tokens after each block

        A backbone that merges tokens returns maps of all patches, in which those that were merged
        are equal. Its hidden states are triples, with the number of patches in each token, ``b t h
        w``. With ``token_keep`` below 1, ``'tokens'`` in training returns the class token ``b d``,
        the patches that were kept ``b t k d`` and their places ``b t k``, from 0 to ``p - 1``.

    Raises:
        ValueError: An argument is out of its range, or the video has a wrong shape.

    Example:
        >>> model = TimeSformer(num_frames=8, img_size=224)
        >>> model(torch.rand(1, 3, 8, 224, 224)).shape
        torch.Size([1, 768])
    """

    @takes_mmaction2_arguments
    def __init__(
        self,
        num_frames: int = 8,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dims: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        attention_type: str = 'divided_space_time',
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_eps: float = 1e-6,
        frozen_stages: int = -1,
        with_cp: bool | str = False,
        out_type: str = 'cls_token',
        temporal_init: str = 'zero',
        embed_init_std: float = 0.02,
        merge: dict[str, Any] | None = None,
        token_keep: float = 1.0,
        token_drop_mode: str = 'track',
        block_cfg: dict[str, Any] | None = None,
        attn_cfg: dict[str, Any] | None = None,
        ffn_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.register_load_state_dict_pre_hook(refuse_other_weights)
        _check_choice('attention_type', attention_type, tuple(BLOCKS))
        _check_choice('out_type', out_type, OUT_TYPES)
        _check_choice('with_cp', with_cp, LEVELS)
        _check_range('num_frames', num_frames, 1)
        _check_range('patch_size', patch_size, 1)
        _check_range('num_layers', num_layers, 1)
        _check_range('frozen_stages', frozen_stages, -1, num_layers)
        check_dropout(token_keep, token_drop_mode)
        height, width = to_2tuple(img_size)
        _check_patches(height, width, patch_size, 'backbone.img_size')

        self.attention_type = attention_type
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.grid = height // patch_size, width // patch_size
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.out_type = out_type
        self.token_keep, self.token_drop_mode = token_keep, token_drop_mode

        self.patch_embed = PatchEmbed(patch_size, in_channels, embed_dims)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], embed_dims))
        nn.init.trunc_normal_(self.cls_token, std=embed_init_std)
        nn.init.trunc_normal_(self.pos_embed, std=embed_init_std)
        if attention_type == 'space_only':
            self.register_parameter('time_embed', None)
        else:
            self.time_embed = nn.Parameter(torch.empty(1, num_frames, embed_dims))
            init_temporal(self.time_embed, temporal_init, embed_init_std)
        self.drop = nn.Dropout(drop_rate)

        block = {
            'type': BLOCKS[attention_type],
            'embed_dims': embed_dims,
            'num_heads': num_heads,
            'mlp_ratio': mlp_ratio,
            'qkv_bias': qkv_bias,
            'drop_rate': drop_rate,
            'attn_drop_rate': attn_drop_rate,
            'norm_eps': norm_eps,
            'attn_cfg': attn_cfg,
            'ffn_cfg': ffn_cfg,
        }
        if attention_type == 'divided_space_time':
            block['temporal_init'] = temporal_init
        self.blocks = nn.ModuleList(
            MODELS.build({**block, 'drop_path_rate': rate, **(block_cfg or {})})
            for rate in np.linspace(0, drop_path_rate, num_layers).tolist()
        )
        self.norm = nn.LayerNorm(embed_dims, eps=norm_eps)
        set_merge(self, **merge_arguments(merge))
        self._freeze()

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **changes: Any) -> 'TimeSformer':
        """Build the backbone of a checkpoint and load its weights; in evaluation mode.

        The classifier of the checkpoint is not loaded. For labels of videos use
        ``VideoClassifier.from_pretrained``.

        Args:
            name: A Hugging Face folder or repository (``owner/name``, ``hf://owner/name@revision``),
                or a checkpoint of any readable format.
            changes: Other arguments than those of the checkpoint, such as ``num_frames=16``,
                ``img_size=448`` or ``out_type='tokens'``.

        Raises:
            CheckpointError: A key is missing or unknown, or a shape differs.
            FileNotFoundError: It does not exist.
            ValueError: It cannot be read or downloaded.

        Example:
            >>> backbone = TimeSformer.from_pretrained('facebook/timesformer-base-finetuned-k400')
        """
        from mmtimesformer.checkpoints.load import match_weights, read_backbone

        arguments, weights = read_backbone(name, changes)
        model = cls(**arguments)
        model.load_state_dict(match_weights(weights, model).complete(model))
        model.eval()
        return model

    def forward(self, video: Tensor) -> Any:
        self._check_video(video)
        if portion := self._videos_at_a_time(video):
            return torch.cat([self._forward_chunk(videos) for videos in video.split(portion)])
        return self._forward_chunk(video)

    def _forward_chunk(self, video: Tensor) -> Any:
        """Run all videos at once; see the class for the output."""
        t, height, width = video.shape[2:]
        grid = height // self.patch_size, width // self.patch_size

        if has_fewer_tokens(self):
            return forward_fewer(self, video)
        tokens = self.embed(video)
        states = [tokens] if self.out_type == 'hidden_states' else []
        for block in self.blocks:
            tokens = self.run_block(block, tokens, t)
            if self.out_type == 'hidden_states':
                states.append(tokens)

        if self.out_type == 'hidden_states':
            return tuple(self.unpack(state, t, grid) for state in states)
        if self.out_type == 'tokens':
            cls, patches = self.unpack(tokens, t, grid)
            return self.norm(cls), self.norm(patches)
        return self.norm(self.unpack_class(tokens, t))

    def run_block(self, block: nn.Module, tokens: Tensor, t: int, *key_bias: Tensor) -> Tensor:
        """Run a block, checkpointed if ``with_cp`` is set, the last one only as far as needed.

        Shape:
            - tokens: as :meth:`embed` returns them -> the same, or the class token alone
            - key_bias: of merged tokens, see :mod:`~mmtimesformer.models.track_merging`
        """
        step: Any = block
        if self.out_type == 'cls_token' and block is self.blocks[-1] and _is_as_built(block):
            step = block.forward_cls
        if self.with_cp and self.training:
            return recompute(step, tokens, t, *key_bias, level=self.with_cp)
        output: Tensor = step(tokens, t, *key_bias)
        return output

    def embed(self, video: Tensor) -> Tensor:
        """Turn pixels into tokens with position and, except in space-only, time embeddings.

        Every frame gets the same positions, every track the same times; the class token has its
        own position and no time. The token order depends on the attention type: divided attention
        has frame by frame, each with a copy of the class token in front.

        Shape:
            - video: ``b c t H W`` -> divided: ``b t 1+p d``; joint: ``b (1+p*t) d``; space-only:
              ``(b t) (1+p) d``
        """
        b, _, t, height, width = video.shape
        grid = height // self.patch_size, width // self.patch_size
        positions = resize_positions(self.pos_embed, self.grid, grid)

        cls = self.drop(self.cls_token + positions[:, :1].expand(b, -1, -1))
        patches = self.patch_embed(rearrange(video, 'b c t H W -> (b t) c H W'))
        patches = rearrange(patches, '(b t) p d -> b t p d', b=b)
        places = positions[:, 1:]
        if self.time_embed is not None:
            places = places + rearrange(resize_times(self.time_embed, t), '1 t d -> t 1 d')
        patches = self.drop(patches + places)
        if self.attention_type == 'joint_space_time':
            return torch.cat([cls, rearrange(patches, 'b t p d -> b (p t) d')], dim=1)
        frames = torch.cat([repeat(cls, 'b 1 d -> b t 1 d', t=t), patches], dim=2)
        if self.attention_type == 'space_only':
            return rearrange(frames, 'b t n d -> (b t) n d')
        return frames

    def attention_maps(
        self,
        video: Tensor,
        layers: Sequence[int] | None = None,
        score: Callable[[Any], Tensor] | None = None,
    ) -> AttentionMaps:
        """Return the attention of this video: every layer and head, in time and in space.

        The pass uses no fused layers, so ``maps.output`` equals the usual output to rounding.
        Weights are computed from it on request.

        Args:
            video: As for the model itself, which must be in evaluation mode.
            layers: Blocks to record, from 0, or from -1 backwards; all, if not given.
            score: Maps the model's output to one number per video, whose gradient
                :meth:`AttentionMaps.relevance` needs. It takes the memory of a training step.

        Raises:
            ValueError: The model is in training, or there is no such layer.
            TypeError: A custom attention has no ``attention_weights``.

        Example:
            >>> maps = model.eval().attention_maps(video)
            >>> maps.spatial(-1).shape, maps.temporal(-1).shape  # last layer, all heads
            >>> maps.rollout()  # b t h w
        """
        captured = capture_attention(self, video, layers, score)
        grid = grid_of(self, video)
        return AttentionMaps(scheme_of(self), len(video), grid, len(self.blocks), *captured)

    def unpack(self, tokens: Tensor, t: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Split tokens into the class token and the map of patches in time and space.

        Shape:
            - tokens: as :meth:`embed` returns them -> ``b d`` and ``b t h w d``
        """
        h, w = grid
        cls = self.unpack_class(tokens, t)
        if self.attention_type == 'joint_space_time':
            return cls, rearrange(tokens[:, 1:], 'b (h w t) d -> b t h w d', t=t, h=h, w=w)
        if self.attention_type == 'space_only':
            tokens = rearrange(tokens, '(b t) n d -> b t n d', t=t)
        return cls, rearrange(tokens[:, :, 1:], 'b t (h w) d -> b t h w d', h=h, w=w)

    def unpack_class(self, tokens: Tensor, t: int) -> Tensor:
        """Return the class token of each video.

        For space-only it is the mean of the class tokens of all frames.

        Shape:
            - tokens: as :meth:`embed` returns them, with or without the patches -> ``b d``
        """
        if self.attention_type == 'space_only':
            return reduce(tokens[:, 0], '(b t) d -> b d', 'mean', t=t)
        return tokens[:, 0] if self.attention_type == 'joint_space_time' else tokens[:, 0, 0]

    def train(self, mode: bool = True) -> 'TimeSformer':
        """Switch to training mode, but keep frozen parts in evaluation mode: no dropout."""
        super().train(mode)
        self._freeze()
        return self

    def _videos_at_a_time(self, video: Tensor) -> int | None:
        """Return how many videos to run together, or ``None`` for all.

        Only for inference on a CPU, where tensors above ``LARGE`` are slow: in portions, three
        crops of 8 x 224 x 224 take 5 % less time and a third of the memory. Models with hooks run
        all videos at once.
        """
        on_cpu = video.device.type == 'cpu'
        if torch.is_grad_enabled() or is_recorded() or not on_cpu or self.out_type != 'cls_token':
            return None
        b, _, t, height, width = video.shape
        if b == 1 or any(map(has_hooks, self.modules())):
            return None
        tokens = t * height * width // self.patch_size**2
        hidden = 4 * self.norm.normalized_shape[0]  # of the MLP, the widest there is
        portion = max(1, LARGE // (tokens * hidden * video.element_size()))
        return portion if portion < b else None

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        embeddings = [self.cls_token, self.pos_embed, self.time_embed]
        for parameter in filter(lambda x: x is not None, embeddings):
            parameter.requires_grad_(False)
        frozen = [self.patch_embed, self.drop, *self.blocks[: self.frozen_stages]]
        if self.frozen_stages == len(self.blocks):
            frozen.append(self.norm)
        for module in frozen:
            module.eval().requires_grad_(False)

    def _check_video(self, video: Tensor) -> None:
        shape = tuple(video.shape)
        if video.ndim != 5 or shape[1] != self.in_channels or not (shape[0] and shape[2]):
            raise ValueError(
                f'a video of shape {shape} is not (b, c, t, H, W) with c={self.in_channels} '
                'channels, a video and at least one frame; end the pipeline with '
                "FormatShape('NCTHW'), or set backbone.in_channels"
            )
        if not video.is_floating_point():
            raise ValueError(
                f'a video of {video.dtype} is not normalised; set data_preprocessor to '
                'ActionDataPreprocessor with mean and std, or convert it to float'
            )
        _check_patches(shape[3], shape[4], self.patch_size, 'the crop size of the pipeline')


def _is_as_built(block: nn.Module) -> bool:
    """Return whether a block is one of ours, unchanged and without hooks.

    A custom block, attention or projection (LoRA, quantised), and a hook on any part, need complete
    forward passes with all patches.
    """
    return (
        type(block) in (DividedSpaceTimeBlock, JointSpaceTimeBlock, SpaceOnlyBlock)
        and type(block.attn) is SelfAttention
        and is_plain(block.attn.qkv)  # its weights are used past its forward pass
        and not any(map(has_hooks, block.modules()))
    )


def _check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices:
        known = ', '.join(map(str, choices))
        raise ValueError(f'{name}={value!r} is not known; set backbone.{name} to one of {known}')


def _check_range(name: str, value: int, low: int, high: int | None = None) -> None:
    if not isinstance(value, int):
        raise ValueError(f'{name}={value!r} is not a whole number; set backbone.{name} to one')
    if value < low or (high is not None and value > high):
        rule = f'at least {low}' if high is None else f'between {low} and {high}'
        raise ValueError(f'{name}={value} is out of range; set backbone.{name} to {rule}')


def _check_patches(height: int, width: int, patch_size: int, key: str) -> None:
    if min(height, width) < patch_size or height % patch_size or width % patch_size:
        raise ValueError(
            f'frames of {height} x {width} pixels cannot be cut into whole patches of '
            f'{patch_size} x {patch_size}; set {key} to multiples of {patch_size}'
        )
