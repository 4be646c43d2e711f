"""MMEngine reads through our reader: nothing in a file runs, and a resume is whole."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

import mmtimesformer


class Hostile:
    """Pickled, it asks the reader to create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (open, (str(self.marker), 'w'))


class Small(BaseModule):
    """Any model of MMEngine's, not one of ours."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.layer = nn.Linear(2, 3)


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Path]:
    """A file with good weights and something to run with them."""
    marker = tmp_path / 'executed'
    path = tmp_path / 'hostile.pth'
    torch.save({'state_dict': Small().state_dict(), 'meta': Hostile(marker)}, path)
    yield path
    assert not marker.exists()


def test_a_checkpoint_loader_runs_nothing(hostile: Path) -> None:
    with pytest.raises(ValueError, match='is refused: it asks for'):
        CheckpointLoader.load_checkpoint(str(hostile))


def test_load_checkpoint_runs_nothing(hostile: Path) -> None:
    with pytest.raises(ValueError, match='is refused'):
        load_checkpoint(Small(), str(hostile))


@pytest.mark.parametrize('prefix', [None, 'layer'])
def test_mmengines_pretrained_runs_nothing(hostile: Path, prefix: str | None) -> None:
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(hostile), 'prefix': prefix}
    with pytest.raises(ValueError, match='is refused'):
        Small(init_cfg).init_weights()


def test_no_environment_variable_opens_the_door(
    hostile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(ValueError, match='is refused'):
        CheckpointLoader.load_checkpoint(str(hostile))


def test_no_scheme_is_left_that_reads_without_weights_only() -> None:
    """MMEngine's own readers for these call ``torch.load(weights_only=False)``."""
    for address in (
        'a.pth', 's3://a.pth', 'petrel://a.pth', 'cluster:s3://a.pth', 'open-mmlab://a',
        'openmmlab://a', 'pavi://a', 'http://a/b.pth', 'https://a/b.pth',
    ):  # fmt: skip
        loader = CheckpointLoader._get_checkpoint_loader(address)
        assert loader.__module__ == 'mmtimesformer.engine.checkpointing.safe_loading', address


def test_pavi_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match='pavi:// is not supported'):
        CheckpointLoader.load_checkpoint('pavi://model')


def test_loss_curves_come_back_as_mmengines(tmp_path: Path) -> None:
    hub = MessageHub('test_loading')
    hub.update_scalar('loss', 0.5)
    hub.update_scalar('loss', 0.25, 3)
    torch.save({'state_dict': {}, 'message_hub': hub.state_dict()}, tmp_path / 'a.pth')

    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    curve = loaded['message_hub']['log_scalars']['loss']
    assert type(curve) is HistoryBuffer
    curve.update(0.125)
    assert curve.current() == 0.125
    assert curve.mean() == pytest.approx((0.5 + 0.25 + 0.125) / 5)

    torch.save(loaded, tmp_path / 'b.pth')  # saved again, it is as plain as before
    again = CheckpointLoader.load_checkpoint(str(tmp_path / 'b.pth'))
    assert again['message_hub']['log_scalars']['loss'].data[0].tolist() == [0.5, 0.25, 0.125]


def test_the_config_text_that_a_runner_would_execute_is_dropped(tmp_path: Path) -> None:
    """``Runner.resume`` runs ``meta['config']`` as a Python file; ``cfg`` is only read."""
    meta = {'config': "open('executed', 'w')", 'cfg': 'model = dict()', 'epoch': 1}
    torch.save({'state_dict': {}, 'meta': meta}, tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded['meta'] == {'cfg': 'model = dict()', 'epoch': 1}


def test_a_checkpoint_comes_from_the_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMTIMESFORMER_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(SimpleHTTPRequestHandler, 'log_message', lambda *_: None)
    torch.save({'state_dict': {'x': torch.ones(2)}}, tmp_path / 'a.pth')
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        loaded = CheckpointLoader.load_checkpoint(f'{address}/a.pth')
        with pytest.raises(ValueError, match='nowhere'):
            CheckpointLoader.load_checkpoint(f'{address}/nowhere.pth')
        server.shutdown()
    assert loaded['state_dict']['x'].tolist() == [1, 1]


def test_the_model_needs_no_opencv() -> None:
    """MMEngine's runner imports it; core requirements do not bring it."""
    code = (
        "import sys; sys.modules['cv2'] = None; import mmtimesformer; "
        'print(sum(p.numel() for p in mmtimesformer.TimeSformer(num_layers=1).parameters()))'
    )
    root = Path(mmtimesformer.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
