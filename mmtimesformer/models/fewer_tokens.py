"""The forward pass of a backbone that drops tracks (in training) or merges them."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from mmtimesformer.models.track_dropout import draw_kept
from mmtimesformer.models.track_merging import MergedTokens, check_number
from mmtimesformer.models.track_selection import TokenOrder


def has_fewer_tokens(model: Any) -> bool:
    """Return whether a backbone, as it is now, drops or merges tokens."""
    return model.merging is not None or (model.training and model.token_keep < 1)


def forward_fewer(model: Any, video: Tensor) -> Any:
    """Return the output of a backbone that has fewer tokens than the video has patches.

    The arguments and the output are those of :class:`~mmtimesformer.models.TimeSformer`.
    """
    b, _, t, height, width = video.shape  # len() would be a constant to torch.export
    grid = height // model.patch_size, width // model.patch_size
    tokens, kept = model.embed(video), None
    if model.training and model.token_keep < 1:
        tokens, kept = drop_tracks(model, tokens, b, t, grid)
        grid = kept.shape[-1], 1
    states = _run_blocks(model, tokens, b, t)

    if model.out_type == 'hidden_states':
        return tuple(
            (*model.unpack(state.unmerge(), t, grid), state.size_map(grid)) for state in states
        )
    if model.out_type == 'cls_token':
        return model.norm(model.unpack_class(states[-1].tokens, t))
    cls, patches = map(model.norm, model.unpack(states[-1].unmerge(), t, grid))
    return (cls, patches) if kept is None else (cls, patches.squeeze(3), kept)


def drop_tracks(
    model: Any, tokens: Tensor, b: int, t: int, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Draw which tracks of the embedded video are kept, and return their tokens and places.

    Shape:
        - tokens: as :meth:`~mmtimesformer.models.TimeSformer.embed` returns them -> the same with
          ``k`` places
        - places: ``b t k``

    Raises:
        ValueError: The output would be hidden states, which are maps of all patches.
    """
    if model.out_type == 'hidden_states':
        raise ValueError(
            f"token_keep={model.token_keep} drops tracks in training, and out_type='hidden_states' "
            "needs all of them; set backbone.out_type to 'cls_token' or 'tokens', or "
            'backbone.token_keep to 1'
        )
    share, mode = model.token_keep, model.token_drop_mode
    kept = draw_kept(b, t, grid[0] * grid[1], share, mode, tokens.device)
    return TokenOrder(model.attention_type, t).select(tokens, kept), kept


def _run_blocks(model: Any, tokens: Tensor, b: int, t: int) -> list[MergedTokens]:
    """Run all blocks; return the tokens after each for hidden states, else after the last."""
    merging = model.merging
    order = TokenOrder(model.attention_type, t)
    state = MergedTokens.single(tokens, order, b, merging.matching if merging else 'track')
    if merging:
        check_number(merging, state.place.shape[-1])
    states = [state]
    for number, block in enumerate(model.blocks):
        output = model.run_block(block, state.tokens, t, *state.key_bias())
        states.append(replace(state, tokens=output))
        if model.out_type != 'hidden_states':
            states = states[-1:]
        state = states[-1]
        if merging and number in merging.layers:
            state = state.merge(merging.r)
    return states
