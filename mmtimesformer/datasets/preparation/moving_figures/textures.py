"""Textures drawn from noise: ground seen from above, and sky with its horizon."""

import cv2
import numpy as np

GROUND_PIXELS, GROUND_METRES = 512, 16.0  # the ground repeats, mirrored
SKY_SIZE = (160, 640)  # rows of elevation from 0 to 45 degrees, columns of 180 degrees around


def noise(rng: np.random.Generator, shape: tuple[int, int], roughness: float) -> np.ndarray:
    """Return noise with a spectrum of ``1 / f**roughness``, 0..1, that repeats at its edges."""
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1]))
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(spectrum / frequency**roughness, s=shape)
    low, high = np.percentile(values, [1, 99])
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


def mix(one: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blend two colours, or pictures, by a weight of 0 to 1 at each pixel."""
    return one + (other - one) * weight[..., None]


def rgb(*values: float) -> np.ndarray:
    """Return a colour as an array."""
    return np.array(values, np.float32)


# Ground, seen from above: rows away from the camera, columns to the right.


def _square() -> tuple[int, int]:
    return GROUND_PIXELS, GROUND_PIXELS


def _metres() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:GROUND_PIXELS, :GROUND_PIXELS].astype(np.float32)
    return y * GROUND_METRES / GROUND_PIXELS, x * GROUND_METRES / GROUND_PIXELS


def grass(rng: np.random.Generator) -> np.ndarray:
    """Return grass, in most places with a gravel path."""
    green = rgb(*(rng.uniform(0.85, 1.1, 3) * [96, 134, 58]))
    ground = mix(green * 0.62, green * 1.2, noise(rng, _square(), 1.4))
    ground = mix(ground, rgb(168, 156, 92), 0.35 * noise(rng, _square(), 1.8) ** 2)
    ground *= 0.72 + 0.5 * noise(rng, _square(), 0.4)[..., None]
    y, _ = _metres()
    path = np.clip(1.2 - abs(y - 9 + 1.2 * noise(rng, _square(), 2.5)), 0, 0.25) * 4
    gravel = mix(rgb(150, 136, 112), rgb(196, 182, 156), noise(rng, _square(), 0.5))
    return mix(ground, gravel, path * (rng.random() < 0.6))


def pavement(rng: np.random.Generator) -> np.ndarray:
    """Return slabs, and a road behind them."""
    y, x = _metres()
    grey = rgb(*(rng.uniform(0.9, 1.08, 3) * 148))
    slabs = rng.uniform(0.86, 1.1, (40, 40)).astype(np.float32)
    side = float(rng.choice([0.8, 1.0, 1.6]))
    row, column = (y // side).astype(int), (x // side).astype(int)
    ground = grey * slabs[row, column][..., None]
    joint = (np.minimum(y % side, side - y % side) < 0.03) | (
        np.minimum(x % side, side - x % side) < 0.03
    )
    ground = mix(ground, grey * 0.5, joint.astype(np.float32))
    ground *= 0.8 + 0.35 * noise(rng, _square(), 0.6)[..., None]
    road = np.clip((y - 8.5) * 6, 0, 1)  # behind the figure
    asphalt = mix(rgb(66, 68, 72), rgb(98, 98, 102), noise(rng, _square(), 0.5))
    dashes = ((abs(y - 12.5) < 0.09) & (x % 4 < 2)).astype(np.float32)
    kerb = (abs(y - 8.5) < 0.12).astype(np.float32)
    asphalt = mix(asphalt, rgb(214, 212, 200), dashes)
    return mix(mix(ground, asphalt, road), rgb(190, 188, 182), kerb)


def floor(rng: np.random.Generator) -> np.ndarray:
    """Return the floor of a sports hall, with lines."""
    y, x = _metres()
    wood = rgb(*(rng.uniform(0.9, 1.06, 3) * [196, 146, 92]))
    row = (y // 0.2).astype(int)
    plank = ((x + row * 0.73) // 1.6).astype(int)
    tones = rng.uniform(0.84, 1.08, (90, 60)).astype(np.float32)
    ground = wood * tones[row % 90, plank % 60][..., None]
    grain = cv2.GaussianBlur(noise(rng, _square(), 0.2), (31, 1), 0)
    ground *= 0.7 + 0.6 * grain[..., None]
    ground = mix(ground, wood * 0.45, (y % 0.2 < 0.03).astype(np.float32) * 0.7)
    paint = rgb(*rng.choice([(236, 236, 230), (60, 90, 170), (180, 50, 48)]))
    rings = abs(np.hypot(x - rng.uniform(5, 11), y - 6.5) - 1.8) < 0.05
    lines = rings | (abs(y - 4) < 0.05) | (abs(y - 9.4) < 0.05) | (abs(x - 2) < 0.05)
    return mix(ground, paint, lines.astype(np.float32) * 0.85)


def asphalt(rng: np.random.Generator) -> np.ndarray:
    """Return asphalt, with the lines of a playground."""
    grey = rgb(*(rng.uniform(0.92, 1.05, 3) * [118, 112, 110]))
    ground = mix(grey * 0.7, grey * 1.15, noise(rng, _square(), 1.6))
    ground *= 0.8 + 0.4 * noise(rng, _square(), 0.3)[..., None]
    crack = abs(noise(rng, _square(), 1.9) - 0.5) < 0.006
    ground = mix(ground, grey * 0.45, crack.astype(np.float32))
    y, x = _metres()
    white = (abs(x - 8) < 0.05) | (abs(y - 5.5) < 0.05) | (abs(np.hypot(x - 8, y - 5.5) - 2) < 0.05)
    worn = white * (noise(rng, _square(), 0.8) > 0.4)
    return mix(ground, rgb(216, 214, 200), worn.astype(np.float32) * 0.8)


# Sky: the first row is the horizon.


def draw_sky(rng: np.random.Generator, warm: float, clouds: float) -> np.ndarray:
    """Return a sky.

    Args:
        rng: Random numbers.
        warm: How low the sun is, 0 to 1.
        clouds: How much of the sky they cover, 0 to 1.
    """
    rows, columns = SKY_SIZE
    height = np.linspace(0, 1, rows, dtype=np.float32)[:, None] * np.ones(columns, np.float32)
    low = mix(rgb(206, 222, 236), rgb(250, 206, 160), np.full((), warm, np.float32))
    high = mix(rgb(78, 136, 208), rgb(110, 128, 180), np.full((), warm, np.float32))
    sky = mix(low, high, height**0.6)
    field_ = cv2.resize(noise(rng, (rows, columns // 4), 1.7), (columns, rows))
    cover = np.clip((field_ - 1 + clouds) * 3.5, 0, 1)
    shaded = mix(rgb(196, 202, 212), rgb(252, 250, 246), np.clip(field_ * 1.3, 0, 1))
    return mix(sky, shaded, cover * (0.45 + 0.5 * height))


def hills(rng: np.random.Generator, sky: np.ndarray, haze: np.ndarray) -> np.ndarray:
    """Put two ranges of hills on the horizon."""
    rows, columns = SKY_SIZE
    up = np.arange(rows, dtype=np.float32)[:, None]
    for part, tone in ((0.6, 0.62), (1.0, 0.38)):
        line = noise(rng, (4, columns), 2.2)[0]
        top = (6 + 26 * line) * (1.35 - part * 0.7)
        green = rgb(64, 88, 66) * (1 - tone) + haze * tone
        texture = 0.9 + 0.2 * noise(rng, SKY_SIZE, 0.8)[..., None]
        sky = mix(sky, green * texture, np.clip(top - up, 0, 1))
    return sky


def skyline(rng: np.random.Generator, sky: np.ndarray, haze: np.ndarray) -> np.ndarray:
    """Put far buildings on the horizon."""
    sky = sky.copy()
    column = 0
    while column < SKY_SIZE[1]:
        width, top = int(rng.integers(8, 26)), int(rng.integers(8, 46))
        tone = rng.uniform(0.45, 0.7)
        block = sky[:top, column : column + width]
        block[:] = (rgb(96, 100, 112) * rng.uniform(0.8, 1.2)) * (1 - tone) + haze * tone
        block[2::4, 1::3] *= 0.86
        column += width
    return sky
