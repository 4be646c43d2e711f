"""Free memory is MemAvailable, and unknown where Linux is not."""

from pathlib import Path

import pytest

from mmtimesformer.fileio.free_memory import available_memory


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('MemTotal: 900 kB\nMemFree:  10 kB\nMemAvailable:  700 kB\n', 700 * 1024),
        ('MemTotal: 900 kB\n', None),
        (None, None),
    ],
)
def test_the_page_cache_counts_as_free(
    text: str | None, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, **_: str) -> str:
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, 'read_text', read)
    assert available_memory() == expected
