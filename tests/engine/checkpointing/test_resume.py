"""--resume reads the checkpoint once, for its check and its load."""

from collections import Counter
from pathlib import Path

import pytest

from mmtimesformer.engine.checkpointing import resume, safe_loading
from tests.engine.conftest import Train


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count checkpoints that are loaded, and those that are read for a check alone."""
    counted: Counter[str] = Counter()
    load, check = safe_loading.read_model_checkpoint, resume.corruption_of

    def counting_load(source: str, map_location: object = 'cpu') -> object:
        counted[f'load {Path(source).name}'] += 1
        return load(source, map_location)

    def counting_check(checkpoint: str) -> str | None:
        counted[f'check {Path(checkpoint).name}'] += 1
        return check(checkpoint)

    monkeypatch.setattr(safe_loading, 'read_model_checkpoint', counting_load)
    monkeypatch.setattr(resume, 'corruption_of', counting_check)
    return counted


@pytest.mark.parametrize('named', [False, True])
def test_a_valid_checkpoint_is_read_once(
    train: Train, tmp_path: Path, reads: Counter[str], named: bool
) -> None:
    train(train_cfg={'max_epochs': 1})
    checkpoint = str(tmp_path / 'work/epoch_1.pth')
    train(resume=True, load_from=checkpoint if named else None, train_cfg={'max_epochs': 2})
    assert reads == {'load epoch_1.pth': 1}


def test_only_a_damaged_checkpoint_is_read_twice(
    train: Train, tmp_path: Path, reads: Counter[str]
) -> None:
    train(train_cfg={'max_epochs': 2})
    newest = tmp_path / 'work/epoch_2.pth'
    newest.write_bytes(newest.read_bytes()[:-1000])
    train(resume=True)
    assert reads == {'load epoch_2.pth': 1, 'check epoch_2.pth': 1, 'load epoch_1.pth': 1}


def test_resume_auto_starts_from_load_from_where_there_is_nothing_to_resume(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(train_cfg={'max_epochs': 1}, work_dir=tmp_path / 'first')
    first = str(tmp_path / 'first/epoch_1.pth')
    runner = train(resume='auto', load_from=first, train_cfg={'max_epochs': 1})
    assert runner.iter == 6  # its own six steps
    assert f'Nothing to resume in {tmp_path}/work; starts from {first}.' in capsys.readouterr().out
    runner = train(resume='auto', load_from='does not exist', train_cfg={'max_epochs': 2})
    assert runner.iter == 12
