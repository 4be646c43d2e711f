"""Draw the number of a frame into its pixels, and read it from the pixels that a reader returns.

The number is drawn as two rows of squares: its eight bits, black or white, and below them their
complement. A frame of which a part was lost does not pass for another number: it has none.
"""

import numpy as np

BITS = 8
SQUARE = 16  # pixels
WIDTH, HEIGHT = BITS * SQUARE, 96
CONTRAST = 60  # of 255, between the squares of 0 and those of 1


def draw_number(number: int) -> np.ndarray:
    """Draw a frame: its number above, and a pattern that moves below.

    Shape:
        - output: ``H W 3``, RGB uint8
    """
    if not 0 <= number < 2**BITS:
        raise ValueError(f'number={number} does not fit into {BITS} bits')
    bits = np.array([number >> bit & 1 for bit in reversed(range(BITS))], np.uint8)
    rows = np.stack([bits, 1 - bits]) * 200 + 25
    squares = rows.repeat(SQUARE, axis=0).repeat(SQUARE, axis=1)
    frame = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    frame[: len(squares)] = squares[..., None]
    frame[len(squares) :] = np.roll(_pattern(), 3 * number, axis=1)
    return frame


def _pattern() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (HEIGHT // 8 - 2 * SQUARE // 8, WIDTH // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def read_number(frame: np.ndarray) -> int | None:
    """Read the number of a frame; ``None`` if the two rows do not agree.

    Shape:
        - frame: ``H W 3``, RGB uint8
    """
    if frame.shape[:2] != (HEIGHT, WIDTH):
        return None
    top = frame[: 2 * SQUARE].astype(float).mean(axis=2).reshape(2, SQUARE, BITS, SQUARE)
    inner = slice(SQUARE // 4, -SQUARE // 4)
    bits, complement = top[:, inner, :, inner].mean(axis=(1, 3))
    if (abs(bits - complement) < CONTRAST).any():
        return None
    return int(sum(1 << place for place, bit in enumerate((bits > complement)[::-1]) if bit))
