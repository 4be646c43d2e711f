"""The switch ``speed``: what a classifier may change to be faster, as one text.

=============  =============================================  ======================================
value          what is done                                   where it is faster
=============  =============================================  ======================================
``exact``      nothing: the reference
``compiled``   operations fused by ``torch.compile``          everywhere; the first video waits
``bf16``       the whole backbone in bfloat16                 GPUs; CPUs with AVX-512 BF16 or AMX
``int8``       linear layers of the blocks in 8 bits          CPUs with VNNI or AMX
``merged:r``   ``r`` similar tracks merged after each block   everywhere
=============  =============================================  ======================================

Values join by ``+``, in any order: ``compiled+bf16``, ``merged:2+int8``. Only ``exact`` and
``compiled`` leave scores as they are; nothing but ``exact`` is ever a default.
"""

import argparse
import re
from dataclasses import dataclass
from typing import Any

EXACT = 'exact'
CHOICES = "'exact', 'compiled', 'bf16', 'int8', 'merged:r' (such as merged:2)"
RULE = f'give {CHOICES}, or several joined by +, such as compiled+bf16'
MERGED = re.compile(r'merged:([1-9]\d{0,5})')


@dataclass(frozen=True)
class Speed:
    """A value of the switch, parsed.

    Attributes:
        compiled: Whether the backbone is compiled.
        arithmetic: ``'fp32'``, ``'bf16'`` or ``'int8'``.
        merged: Tracks that are merged after each block, 0 for none.
    """

    compiled: bool = False
    arithmetic: str = 'fp32'
    merged: int = 0

    @classmethod
    def parse(cls, text: str) -> 'Speed':
        """Parse a value of the switch.

        Raises:
            ValueError: A part is unknown, given twice, or contradicts another.
        """
        parts = str(text).split('+')
        kinds = [_kind(part) for part in parts]
        for kind, part in zip(kinds, parts, strict=True):
            if kind is None:
                raise ValueError(f'speed={text!r}: {part!r} is not known; {RULE}')
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f'speed={text!r} gives {kind} twice; {RULE}')
        if EXACT in kinds and len(kinds) > 1:
            raise ValueError(f'speed={text!r}: exact joins with nothing; {RULE}')
        if {'bf16', 'int8'} <= {*kinds}:
            raise ValueError(f'speed={text!r}: bf16 and int8 exclude each other; {RULE}')
        merged = next((int(part.partition(':')[2]) for part in parts if ':' in part), 0)
        arithmetic = next((kind for kind in ('bf16', 'int8') if kind in kinds), 'fp32')
        return cls('compiled' in kinds, arithmetic, merged)

    @property
    def is_exact(self) -> bool:
        """Whether nothing is changed."""
        return self == Speed()

    def __str__(self) -> str:
        parts = [f'merged:{self.merged}'] * bool(self.merged) + ['compiled'] * self.compiled
        parts += [self.arithmetic] * (self.arithmetic != 'fp32')
        return '+'.join(parts) or EXACT


def _kind(part: str) -> str | None:
    """Return the name of a part of the switch, without its number."""
    if part in (EXACT, 'compiled', 'bf16', 'int8'):
        return part
    return 'merged' if MERGED.fullmatch(part) else None


class _Suggestions(tuple[str, ...]):
    """Values that a shell completes; parsed ones are all allowed."""

    def __contains__(self, value: object) -> bool:
        return True


def _speed(text: str) -> str:
    try:
        return str(Speed.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_speed(
    parser: argparse.ArgumentParser, option: str = '--speed', several: bool = False
) -> None:
    """Add the switch to a command line; ``several``: a list, of three values if not given."""
    several_of: dict[str, Any] = {'nargs': '+', 'default': ['compiled', 'bf16', 'int8']}
    parser.add_argument(
        option,
        type=_speed,
        choices=_Suggestions((EXACT, 'compiled', 'bf16', 'int8', 'compiled+bf16', 'compiled+int8')),
        metavar='SPEED',
        help='exact, compiled, bf16, int8, merged:r, also joined by +; faster on some machines; '
        'all but exact and compiled change scores a little (mmtimesformer compare_precision)',
        **(several_of if several else {'default': EXACT}),
    )
