"""Select tokens by the places of their patches, whatever the token order of the attention scheme.

Track dropout keeps some of the places, and track merging gathers the tokens of places that share
one. Places are numbered from 0 in each frame, as ``h w``; the class token has none. They are given
as ``b f k``, with ``f = 1`` for the same places in every frame (whole tracks) and ``f = t`` for
other places in each.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


@dataclass(frozen=True)
class TokenOrder:
    """The order of tokens in the sequences that blocks of one attention scheme take.

    A sequence is a frame (divided and space-only attention) or a video (joint), and starts with a
    class token.

    Attributes:
        attention_type: The scheme.
        t: Frames of a video.
    """

    attention_type: str
    t: int

    @property
    def is_joint(self) -> bool:
        return self.attention_type == 'joint_space_time'

    def spread(self, values: Tensor) -> Tensor:
        """Arrange a value of each patch as the patches of a sequence.

        Shape:
            - values: ``b f k`` -> ``(b t) k``; joint: ``b (k t)``
        """
        pattern = 'b t k -> b (k t)' if self.is_joint else 'b t k -> (b t) k'
        return rearrange(values.expand(-1, self.t, -1), pattern)

    def positions(self, places: Tensor) -> Tensor:
        """Return the positions of patches in their sequences.

        Shape:
            - places: ``b f k`` -> ``(b t) k``; joint: ``b (k t)``
        """
        if self.is_joint:
            places = places * self.t + torch.arange(self.t, device=places.device)[:, None]
        return 1 + self.spread(places)

    def select(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return the class token and the patches at some places, in the order of ``places``.

        Shape:
            - tokens: as :meth:`~mmtimesformer.models.TimeSformer.embed` returns them -> the same
              with ``k`` places instead of all
            - places: ``b f k``
        """
        return take(tokens, F.pad(self.positions(places), (1, 0)))

    def frames(self, tokens: Tensor, b: int) -> Tensor:
        """Return the patches frame by frame, without the class token, as a view.

        Shape:
            - tokens: as :meth:`~mmtimesformer.models.TimeSformer.embed` returns them
              -> ``b t p d``
        """
        if self.is_joint:
            return rearrange(tokens[:, 1:], 'b (p t) d -> b t p d', t=self.t)
        return tokens.view(b, self.t, *tokens.shape[-2:])[:, :, 1:]


def take(tokens: Tensor, positions: Tensor) -> Tensor:
    """Return the tokens at some positions of each sequence.

    Shape:
        - tokens: ``… n d``
        - positions: ``rows k``, a row for each sequence -> ``… k d``
    """
    *rows, n, d = tokens.shape
    chosen = tokens.reshape(-1, d).index_select(0, flat(positions, n))
    return chosen.view(*rows, positions.shape[1], d)


def flat(positions: Tensor, n: int) -> Tensor:
    """Return positions in sequences of ``n`` tokens as positions in all sequences, end to end.

    Shape:
        - positions: ``rows k`` -> ``(rows k)``
    """
    first = n * torch.arange(positions.shape[0], device=positions.device)
    return (positions + first[:, None]).flatten()
