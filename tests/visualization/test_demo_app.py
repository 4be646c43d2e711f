"""The page of tools/demo_app.py predicts a video and draws its attention, without a network."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import av
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmtimesformer.config.find import find_config
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.visualization import demo_page as answers_module
from mmtimesformer.visualization.demo_page import DemoPage
from tests.page_requirements import in_a_browser, require

from .browser import Browser, free_port, wait_for

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'demo_app.py'
# The thumbnails of three examples are there, so nothing will change its place any more.
IS_LAID_OUT = (
    '[...document.querySelectorAll(".gallery-item video")].filter(v => v.readyState > 1).length > 2'
)
CLASSES = ['left', 'right', '<b>up</b>', 'down', 'clockwise', 'anti', 'growing', 'shrinking']


@pytest.fixture(scope='module')
def home(tmp_path_factory: pytest.TempPathFactory, tiny_videos: Path) -> Path:
    """A folder that looks as after ``make demo``, with random weights."""
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    folder = tmp_path_factory.mktemp('home')
    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(find_config('timesformer_divST-tiny_moving-shapes'))
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(cfg.model)
    work_dir, videos = folder / 'work_dirs/demo/divST', folder / 'data/moving_shapes/videos_val'
    for made in (work_dir, videos):
        made.mkdir(parents=True)
    meta = {'cfg': cfg.pretty_text, 'dataset_meta': {'classes': CLASSES}}
    torch.save({'meta': meta, 'state_dict': model.state_dict()}, work_dir / 'epoch_28.pth')
    (work_dir / 'last_checkpoint').write_text('epoch_28.pth')
    for i, name in enumerate(('00000_left', '00000_right', '00001_left', '00001_up')):
        (videos / f'{name}.mp4').write_bytes((tiny_videos / f'{i}.mp4').read_bytes())
    return folder


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('demo_app', TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def answers(home: Path, tmp_path: Path) -> DemoPage:
    checkpoint = home / 'work_dirs/demo/divST/epoch_28.pth'
    return DemoPage(VideoClassifier(checkpoint=checkpoint, device='cpu'), tmp_path)


# What is shown of a video


def test_labels_have_bars_and_attention_has_a_picture_a_video_and_a_page(
    answers: DemoPage, tiny_videos: Path
) -> None:
    found = answers(tiny_videos / '0.mp4')
    assert found.words.count('<li>') == found.words.count('<i style="width:') == 5
    assert found.grid and found.grid.read_bytes().startswith(b'\x89PNG')
    assert found.overlay
    with av.open(str(found.overlay)) as container:
        assert next(container.decode(video=0)).width
    assert found.walk.startswith('<iframe') and 'srcdoc="&lt;!DOCTYPE html&gt;' in found.walk


def test_names_of_classes_are_text_and_not_markup(answers: DemoPage, tiny_videos: Path) -> None:
    answers.classifier.classes = ['<b>up</b>'] * 8
    words = answers(tiny_videos / '0.mp4').words
    assert '<b>up</b>' not in words and '&lt;b&gt;up&lt;/b&gt;' in words


def test_another_method_does_not_run_the_model_again(
    answers: DemoPage, tiny_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers(tiny_videos / '0.mp4')
    monkeypatch.setattr(answers_module, 'compute_attention', None)
    for method in answers.methods().values():
        again = answers(tiny_videos / '0.mp4', method)
        assert again.words == first.words
    assert again.grid != first.grid and again.grid.read_bytes() != first.grid.read_bytes()


@pytest.mark.parametrize(
    ('content', 'message'), [(b'', 'is an empty file'), (b'\0\1no video\2' * 99, 'x.mp4')]
)
def test_a_file_that_is_no_video_gets_an_error_message_and_no_picture(
    answers: DemoPage, tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / 'x.mp4'
    path.write_bytes(content)
    found = answers(path)
    assert message in found.words and 'class="error"' in found.words
    assert str(tmp_path) not in found.words, 'the folder of uploads is shown'
    assert (found.grid, found.overlay, found.walk) == (None, None, '')


def test_pictures_of_old_answers_do_not_pile_up(
    answers: DemoPage, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, 'WRITTEN', 2)
    for _ in range(4):
        newest = answers(tiny_videos / '0.mp4')
    assert len(list(tmp_path.iterdir())) == 2
    assert newest.grid and newest.grid.is_file()


def test_no_video_is_no_answer(answers: DemoPage) -> None:
    assert answers(None).words == ''


def test_an_abandoned_request_does_not_run_the_model(
    answers: DemoPage, tiny_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, 'compute_attention', None)
    assert answers(tiny_videos / '0.mp4', waits=lambda: False).words == ''
    assert list(tmp_path.iterdir()) == []


def test_a_request_abandoned_meanwhile_is_not_drawn(
    answers: DemoPage, tiny_videos: Path, tmp_path: Path
) -> None:
    turns = iter([True, False])
    assert answers(tiny_videos / '0.mp4', waits=lambda: next(turns)).words == ''
    assert list(tmp_path.iterdir()) == []


# The tool


def test_without_a_checkpoint_the_message_names_make_demo(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tool, 'import_gradio', lambda uploads: None)
    assert tool.main([]) == 1
    assert 'run make demo first, or give --checkpoint' in capfd.readouterr().err


def test_without_gradio_the_message_has_the_install_command(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert tool.main([]) == 1
    assert 'pip install "mmtimesformer[demo]"' in capfd.readouterr().err
    assert (TOOL.parents[1] / 'requirements' / 'demo.txt').is_file()


def test_examples_are_one_video_of_each_name(
    tool: ModuleType, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    names = [Path(path).name for path in tool.find_examples(None)]
    assert names == ['00000_left.mp4', '00000_right.mp4', '00001_up.mp4']
    monkeypatch.chdir(home / 'data')
    assert tool.find_examples(None) == []
    with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
        tool.find_examples(Path('nowhere'))


# In a browser


def environment(home: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(TOOL.parents[1]), os.environ.get('PYTHONPATH', '')])
    return {**os.environ, 'PYTHONPATH': paths}


@pytest.fixture(scope='module')
def address(home: Path) -> Iterator[str]:
    """The page, served as a user serves it."""
    require('Gradio')
    port = free_port()
    command = [sys.executable, str(TOOL), '--port', str(port), '--device', 'cpu']
    with (home / 'output.txt').open('w') as output:
        process = subprocess.Popen(
            command, cwd=home, env=environment(home), stdout=output, stderr=output
        )
        try:
            wait_for(port, seconds=120)
            yield f'http://127.0.0.1:{port}'
        finally:
            process.terminate()
            process.wait()


def there(element: str) -> str:
    return f'return document.querySelector({element!r}) !== null'


def open_tab(browser: Browser, name: str) -> None:
    browser.run(
        'const tabs = [...document.querySelectorAll("button[role=tab]")];'
        f'tabs.filter(tab => tab.innerText === {name!r} && tab.offsetParent).pop().click()'
    )


@in_a_browser
def test_an_uploaded_video_gets_labels_and_an_overlay(
    address: str, browser: Browser, tiny_videos: Path, tmp_path: Path
) -> None:
    browser.open('about:blank', 'true')
    browser.requests()
    browser.open(address, IS_LAID_OUT)
    browser.choose_file('input[type=file]', tiny_videos / '5.mp4')
    browser.wait(there('#words .labels'), seconds=60)
    assert browser.run('return document.querySelectorAll("#words li").length') == 5
    browser.wait('const i = document.querySelector("#grid img"); return i && i.naturalWidth > 500')
    first = browser.run('return document.querySelector("#grid img").src')
    browser.run('document.querySelectorAll("input[type=radio]")[2].click()')
    browser.wait(
        'const i = document.querySelector("#grid img");'
        f'return i && i.src !== {first!r} && i.naturalWidth > 500'
    )
    open_tab(browser, 'Video')
    browser.wait('const v = document.querySelector("#overlay video"); return v && v.videoWidth > 0')
    open_tab(browser, 'Every layer, head and patch')
    browser.wait(
        'const f = document.querySelector("#walk iframe");'
        'return f && f.contentDocument.body.dataset.ready === "yes"'
    )

    broken = tmp_path / 'broken.mp4'
    broken.write_bytes((tiny_videos / '5.mp4').read_bytes()[:900])
    browser.click('#video button[aria-label=Clear]')
    browser.wait(there('#video input[type=file]'))
    browser.choose_file('#video input[type=file]', broken)
    browser.wait(there('#words .error'), seconds=60)
    words = browser.run('return document.querySelector("#words").innerText')
    assert 'broken.mp4' in words and '/' not in words

    own = (f'{address}/', 'data:', 'blob:', 'about:')
    assert [url for url in browser.requests() if not url.startswith((*own, address))] == []
    theirs = f'{address}/assets/'  # Gradio's own scripts
    assert [line for line in browser.complaints() if not line.startswith(theirs)] == []


@in_a_browser
def test_an_example_is_one_click(address: str, browser: Browser) -> None:
    browser.open(address, IS_LAID_OUT)
    browser.run('document.querySelector(".gallery-item:nth-child(2)").click()')
    browser.wait(there('#words .labels'), seconds=60)
    browser.wait('const v = document.querySelector("#video video"); return v && v.videoWidth > 0')


def test_a_port_in_use_is_an_error_message(address: str, home: Path) -> None:
    command = [sys.executable, str(TOOL), '--port', address.rpartition(':')[2]]
    done = subprocess.run(
        command, cwd=home, env=environment(home), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'which may be in use; give --port another number' in done.stderr
    assert 'Traceback' not in done.stderr
