"""A training reads its shards from an object store that is killed, restarted and overloaded."""

import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.tar_shards.test_index import (
    At,
    assert_equal,
    in_tar_shards,
    on_disk,
    train,
    whole_state,
)
from tests.datasets.tar_shards.test_index import folder as folder  # a fixture

pytestmark = pytest.mark.slow
pytest.importorskip('s3fs')
pytest.importorskip('moto.server')

BUCKET = 'videos'
KEYS = {'key': 'test', 'secret': 'test'}


def serve(port: int, folder: Path, overloaded: int) -> None:
    """Serve the files of a folder as a bucket; answer each so-many-th reading by 503."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple
    from werkzeug.test import Client
    from werkzeug.wrappers import Response

    store = DomainDispatcherApplication(create_backend_app)
    client = Client(store, Response)
    host = {'Host': 's3.amazonaws.com', 'Authorization': 'AWS4-HMAC-SHA256 Credential=test/x/s3'}
    assert client.put(f'/{BUCKET}', headers=host).status_code == 200
    for path in folder.iterdir():
        url = f'/{BUCKET}/{path.name}'
        assert client.put(url, data=path.read_bytes(), headers=host).status_code == 200
    count = 0

    def answer(environ: Any, start_response: Any) -> Any:
        nonlocal count
        count += environ['REQUEST_METHOD'] == 'GET'
        if environ['REQUEST_METHOD'] == 'GET' and count % overloaded == 0:
            return Response('<Error><Code>SlowDown</Code></Error>', 503)(environ, start_response)
        return store(environ, start_response)

    run_simple('127.0.0.1', port, answer, threaded=True)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], Any]]:
    """Start the server, each time at the same port."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    servers = []

    def run() -> tuple[Any, int]:
        context = multiprocessing.get_context('spawn')
        server = context.Process(target=serve, args=(port, folder / 'shards', 3), daemon=True)
        server.start()
        servers.append(server)
        return server, port

    yield run
    for server in servers:
        server.kill()
        server.join()


@pytest.mark.parametrize('workers', [0, 2])
def test_a_training_from_a_store_with_faults_is_that_of_files(
    folder: Path, tmp_path: Path, start: Callable[[], Any], workers: int
) -> None:
    """The server is killed within an epoch, comes back, and gives each third time 503."""
    train(on_disk(folder), tmp_path / 'files')
    server, port = start()
    options = {**KEYS, 'client_kwargs': {'endpoint_url': f'http://127.0.0.1:{port}'}}
    dataset = in_tar_shards(f's3://{BUCKET}', storage_options=options, patience=120)

    def restart(_: Any) -> None:
        server.kill()
        server.join()
        time.sleep(1)
        start()

    train(dataset, tmp_path / 'store', At(2, restart), workers=workers)
    assert_equal(*(whole_state(tmp_path / name / 'epoch_2.pth') for name in ('files', 'store')))
    bad = (tmp_path / 'store/bad_videos.jsonl').read_text().splitlines()
    assert len(bad) == 1, 'the empty file, and no fault of the network'
