"""The table of benchmarks/readers.py: drawn numbers, and what counts as right, wrong or refused."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / 'benchmarks'
MODULES = 'drawn_numbers', 'reader_files', 'reader_process', 'readers'


@pytest.fixture(scope='module')
def scripts() -> Iterator[dict[str, ModuleType]]:
    """Import the scripts as they import each other."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: __import__(name) for name in MODULES}
    finally:
        sys.path.remove(str(FOLDER))
        for name in MODULES:
            del sys.modules[name]


def test_a_drawn_number_is_read_again(scripts: dict[str, ModuleType]) -> None:
    drawn = scripts['drawn_numbers']
    frames = [drawn.draw_number(i) for i in range(256)]
    assert [drawn.read_number(frame) for frame in frames] == list(range(256))
    noise = np.random.default_rng(0).integers(-20, 21, frames[0].shape)
    noisy = (frames[77] // 2 + 60 + noise).clip(0, 255).astype(np.uint8)
    assert drawn.read_number(noisy) == 77
    with pytest.raises(ValueError, match='number=256 does not fit'):
        drawn.draw_number(256)


def test_a_damaged_or_mixed_frame_has_no_number(scripts: dict[str, ModuleType]) -> None:
    drawn = scripts['drawn_numbers']
    frame = drawn.draw_number(5)
    mixed = ((frame.astype(int) + drawn.draw_number(6)) // 2).astype(np.uint8)
    torn = frame.copy()
    torn[:8], torn[8:16] = 255, 0
    assert drawn.read_number(mixed) is None
    assert drawn.read_number(frame[:, :64]) is None
    assert drawn.read_number(np.zeros_like(frame)) is None
    assert drawn.read_number(np.rot90(frame)) is None


TRUTH = [24, 25, 26, 27]


@pytest.mark.parametrize(
    ('answer', 'kind', 'words'),
    [
        ({'length': 4, 'returned': [[(i, 24 + i, True)] for i in range(4)]}, 'right', 'right'),
        (
            {'length': 4, 'returned': [[(0, 24, True), (1, 27, True)], [(0, 25, False)]]},
            'wrong',
            '**wrong**: 2 of 4, up to 2 off',
        ),
        (
            {'length': 4, 'returned': [[(0, 24, False), (1, None, False)]]},
            'wrong',
            '**wrong**: 2 damaged',
        ),
        ({'length': 5, 'returned': [[(0, 24, True)]]}, 'wrong', '**wrong**: finds 5 of 4'),
        (
            {'length': 4, 'returned': [[(0, 'no', False)], [(0, 24, True)]]},
            'refused',
            'refused (1 of 4)',
        ),
        ({'length': 4, 'returned': [[(0, 'no', False)], [(1, 26, True)]]}, 'wrong', None),
        ({'error': 'no'}, 'refused', 'refused'),
        ({'error': 'ended', 'crashed': True}, 'crashed', 'crashed'),
    ],
)
def test_an_answer_is_right_wrong_or_refused(
    scripts: dict[str, ModuleType], answer: dict[str, Any], kind: str, words: str | None
) -> None:
    verdict = scripts['readers'].classify(json.loads(json.dumps(answer)), TRUTH)
    assert verdict.kind == kind
    assert words is None or verdict.in_words() == words


class Recorded:
    """A reader of frames that are there, with one mistake."""

    def __init__(self, frames: np.ndarray, mistake: int) -> None:
        self.shown = frames
        self.mistake = mistake

    def __len__(self) -> int:
        return len(self.shown)

    def frames(self, indices: list[int]) -> list[np.ndarray]:
        return [self.shown[i - 3 if i == self.mistake else i] for i in indices]


@pytest.mark.parametrize(
    ('mistake', 'cell'), [(-1, 'right'), (9, '**wrong**: 1 of 20, up to 3 off')]
)
def test_a_reader_that_returns_another_frame_is_found_out(
    scripts: dict[str, ModuleType], tmp_path: Path, mistake: int, cell: str
) -> None:
    frames = np.stack([scripts['drawn_numbers'].draw_number(i) for i in range(20)])
    np.save(tmp_path / 'video.npy', frames)
    answer = scripts['reader_process'].check(
        lambda path: Recorded(frames, mistake), str(tmp_path / 'video')
    )
    verdict = scripts['readers'].classify(answer, list(range(20)))
    assert verdict.in_words() == cell
    asked = [item[0] for request in answer['returned'] for item in request]
    assert set(asked) == set(range(20))


def test_the_end_of_a_readers_process_is_an_answer(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    readers = scripts['readers']
    process = readers.Process(readers.Candidate('none', 'not a reader'), tmp_path)
    answer = process.ask(check='video.mp4')
    assert readers.classify(answer, TRUTH).kind == 'crashed'


def test_the_tables_hold_every_reader_and_file(scripts: dict[str, ModuleType]) -> None:
    readers = scripts['readers']
    rows = [
        {'file': file, 'what': f'kind of {file}', 'reader': reader, 'kind': kind, 'cell': kind}
        for file, kinds in {'a': ('right', 'wrong'), 'b': ('right', 'refused')}.items()
        for reader, kind in zip(('one', 'other'), kinds, strict=True)
    ]
    table = readers.exactness_table(rows)
    assert table[2] == '| kind of a | right | wrong |'
    assert table[-1] == '| **all 2** | 2 right | 1 wrong, 1 refused |'
    times = [
        {'task': task, 'reader': 'one', 'ms': 30.0, 'ratio': [0.9, 1.0, 1.1], 'frames': 300}
        for task in ('clip', 'in order')
    ]
    assert readers.speed_table(times)[2] == (
        '| one | 30.0 | **1.00** (0.90 to 1.10) | 0.100 | **1.00** (0.90 to 1.10) |'
    )


def test_our_readers_return_no_wrong_frame_on_any_kind_of_file() -> None:
    """As the results that are kept say."""
    rows = json.loads((FOLDER / 'results' / 'readers-exactness.json').read_text())[1:]
    kinds = {(row['reader'], row['file']): row['kind'] for row in rows}
    ours = [kind for (reader, _), kind in kinds.items() if reader == 'ours (PyAV)']
    assert ours.count('right') == len(ours) >= 36
    checked = {kind for (reader, _), kind in kinds.items() if reader.startswith('ours, ')}
    assert checked == {'right', 'refused'}
