"""The page of tools/demo_app.py predicts a video and draws its attention, without a network."""

import importlib.util
import os
import subprocess
import sys
import time
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
from mmtimesformer.visualization.demo_page import DemoPage, sentence
from tests.conftest import write_video
from tests.page_requirements import in_a_browser, require, with_axe

from .accessibility import serious_issues
from .browser import Browser, free_port, wait_for
from .layout import at_every_size, layout_faults

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'demo_app.py'
# The pictures of three examples are there, so nothing will change its place any more.
IS_LAID_OUT = (
    '[...document.querySelectorAll(".examples img")].filter(i => i.naturalWidth).length > 2'
    ' && document.querySelector("#video input[type=file]") !== null'
)
STOPPED = sentence('Stopped.')
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
    assert answers(tiny_videos / '0.mp4', waits=lambda: False).words == STOPPED
    assert list(tmp_path.iterdir()) == []


def test_a_request_abandoned_meanwhile_is_not_drawn(
    answers: DemoPage, tiny_videos: Path, tmp_path: Path
) -> None:
    turns = iter([True, False])
    assert answers(tiny_videos / '0.mp4', waits=lambda: next(turns)).words == STOPPED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('left', range(1, 4))
def test_a_request_is_stopped_between_two_blocks_and_the_next_one_works(
    answers: DemoPage, tiny_videos: Path, left: int
) -> None:
    turns = iter([True] * left)
    stopped = answers(tiny_videos / '0.mp4', waits=lambda: next(turns, False))
    assert stopped.words == STOPPED and stopped.grid is None
    assert 'class="labels"' in answers(tiny_videos / '0.mp4').words


def test_a_video_that_is_too_long_gets_a_sentence(answers: DemoPage, tiny_videos: Path) -> None:
    answers.longest = 0.1
    words = answers(tiny_videos / '0.mp4').words
    assert '0.mp4 has ' in words and 'at most 0.1 (--max-seconds)' in words


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
    names = {name: path.name for name, path in tool.find_examples(None).items()}
    files = {'left': '00000_left.mp4', 'right': '00000_right.mp4', 'up': '00001_up.mp4'}
    assert names == files
    monkeypatch.chdir(home / 'data')
    assert tool.find_examples(None) == {}
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
    command = [sys.executable, '-c', SLOW_ON_REQUEST, str(TOOL), '--port', str(port)]
    command += ['--device', 'cpu', '--max-megabytes', '1', '--max-seconds', '5']
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


# Each block takes 3 seconds while there is a file `slow`.
SLOW_ON_REQUEST = """
import runpy, sys, time
from pathlib import Path
from mmtimesformer.models.blocks import DividedSpaceTimeBlock
forward = DividedSpaceTimeBlock.forward
def slow(self, *args, **options):
    time.sleep(3 * Path('slow').exists())
    return forward(self, *args, **options)
DividedSpaceTimeBlock.forward = slow
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def there(element: str) -> str:
    return f'return document.querySelector({element!r}) !== null'


def text_of(browser: Browser, element: str) -> str:
    return str(browser.run(f'return document.querySelector({element!r}).innerText'))


def press_example(browser: Browser, name: str) -> None:
    browser.run(f'document.querySelector("button[data-name={name}]").click()')


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
    open_tab(browser, 'Layers and heads')
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
def test_an_example_has_a_name_and_is_one_click(address: str, browser: Browser) -> None:
    browser.open(address, IS_LAID_OUT)
    names = browser.run(
        'return [...document.querySelectorAll(".examples li")].map(i => i.innerText)'
    )
    assert names == ['left', 'right', 'up']
    press_example(browser, 'right')
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


@in_a_browser
def test_a_running_prediction_is_stopped_and_the_next_one_works(
    address: str, browser: Browser, home: Path
) -> None:
    browser.open(address, IS_LAID_OUT)
    assert browser.run('return document.querySelector("#stop").checkVisibility()') is False
    (home / 'slow').touch()
    try:
        press_example(browser, 'up')
        browser.wait('return document.querySelector("#stop").checkVisibility()')
        browser.run('document.querySelector("#stop").click()')
        browser.wait('return document.querySelector("#words").innerText.includes("Stopped.")')
        browser.wait('return !document.querySelector("#stop").checkVisibility()')
    finally:
        (home / 'slow').unlink()
    press_example(browser, 'left')
    browser.wait(there('#words .labels'), seconds=60)
    assert browser.complaints() == []


@in_a_browser
def test_uploads_over_the_limits_and_files_that_are_no_video_get_a_sentence(
    address: str, browser: Browser, tmp_path: Path
) -> None:
    browser.open(address, IS_LAID_OUT)
    assert 'At most 1 MB and 5 s. One video is computed at a time' in text_of(browser, 'main')
    large = tmp_path / 'large.mp4'
    large.write_bytes(bytes(1_500_000))
    browser.choose_file('#video input[type=file]', large)
    notice = 'large.mp4 has 1.5 MB; a file may have at most 1 MB.'
    assert text_of(browser, '#notice') == notice
    assert browser.run(there('#video input[type=file]')), 'it was sent'

    write_video(tmp_path / 'long.mp4', num_frames=300)
    (tmp_path / 'text.mp4').write_text('no video\n' * 99)
    (tmp_path / 'empty.mp4').touch()
    words = {
        'long.mp4': 'this page takes at most 5 (--max-seconds)',
        'text.mp4': 'cannot be read: it is text',
        'empty.mp4': 'is an empty file',
    }
    for name, message in words.items():
        browser.choose_file('#video input[type=file]', tmp_path / name)
        browser.wait(
            f'return document.querySelector("#words .error")?.innerText.includes({message!r})', 60
        )
        shown = text_of(browser, 'body')
        assert 'Traceback' not in shown and str(tmp_path) not in shown
        browser.click('#video button[aria-label=Clear]')
        browser.wait(there('#video input[type=file]'))
    assert text_of(browser, '#notice') == ''


# A camera that films a square which moves.
CAMERA = """
const canvas = Object.assign(document.createElement('canvas'), { width: 160, height: 120 });
let step = 0;
setInterval(() => {
  const context = canvas.getContext('2d');
  context.fillStyle = '#224466'; context.fillRect(0, 0, 160, 120);
  context.fillStyle = '#ffcc00'; context.fillRect(step++ % 160, 40, 30, 30);
}, 40);
Object.defineProperty(navigator, 'mediaDevices', { value: Object.assign(new EventTarget(), {
  enumerateDevices: async () => [{ kind: 'videoinput', deviceId: 'a', label: 'a camera' }],
  getUserMedia: async () => canvas.captureStream(25),
}) });
"""


@in_a_browser
def test_a_camera_is_offered_where_there_is_one_and_what_it_records_is_classified(
    address: str, browser: Browser
) -> None:
    camera = '#video [aria-label="Capture from camera"]'
    visible = f'return document.querySelector({camera!r}).checkVisibility()'
    browser.open(address, IS_LAID_OUT)
    has_camera = (
        'return navigator.mediaDevices.enumerateDevices()'
        '.then(all => all.some(one => one.kind === "videoinput"))'
    )
    if not browser.run(has_camera):
        browser.wait(visible.replace('return ', 'return !'))
    added = browser.devtools('Page.addScriptToEvaluateOnNewDocument', source=CAMERA)
    try:
        browser.open(address, IS_LAID_OUT)
        browser.wait(visible)
        browser.run(f'document.querySelector({camera!r}).click()')
        browser.wait(there('#video [title="grant webcam access"]'))
        browser.run('document.querySelector("#video [title=\'grant webcam access\'] *").click()')
        browser.wait(there('#video [aria-label="start recording"]'))
        for seconds in (1.5, 0):  # the button starts and ends a recording
            browser.run('document.querySelector("#video .capture-button").click()')
            time.sleep(seconds)
        browser.wait('return document.querySelector("#words .labels, #words .error")', seconds=60)
        assert browser.run('return document.querySelectorAll("#words li").length') == 5
    finally:
        browser.devtools('Page.removeScriptToEvaluateOnNewDocument', **added)


@with_axe
@in_a_browser
def test_the_page_fits_both_widths_and_axe_finds_no_serious_issue(
    address: str, browser: Browser
) -> None:
    for where in at_every_size(browser, address, IS_LAID_OUT):
        assert serious_issues(browser) == [], where
        press_example(browser, 'left')
        browser.wait(there('#grid img'), seconds=60)
        browser.wait(there('#words [data-testid=status-tracker].hide'))
        time.sleep(0.5)  # it fades
        for tab in ('Frames', 'Video', 'Layers and heads'):
            open_tab(browser, tab)
            assert serious_issues(browser) == [], f'{where}, {tab}'
            faults = layout_faults(browser)  # Gradio clips the names of hidden controls
            assert [one for one in faults if 'clipped' not in one] == [], f'{where}, {tab}'
    headings = browser.run('return [...document.querySelectorAll("h2")].map(h => h.innerText)')
    assert headings == ['Input video', 'Example videos', 'Predicted classes', 'Attention maps']


@in_a_browser
def test_a_video_is_classified_by_keyboard_alone(address: str, browser: Browser) -> None:
    about = (
        'const e = document.activeElement; return [e.dataset.name || e.id || e.type || e.tagName,'
        '(e.ariaLabel || e.labels?.[0]?.innerText || e.title || e.innerText || "").trim(),'
        'getComputedStyle(e).outlineStyle]'
    )
    browser.open(address, IS_LAID_OUT)
    reached = []
    for _ in range(20):
        browser.press('\ue004')
        reached.append(browser.run(about))
        if reached[-1][0] == 'up':
            browser.press('\ue007')
    browser.wait(there('#words .labels'), seconds=60)
    assert {'left', 'right', 'up', 'radio'} <= {one for one, _, _ in reached}
    assert all(name for one, name, _ in reached if one != 'BODY'), reached
    assert [one for one in reached if one[0] != 'BODY' and one[2] == 'none'] == []


def test_a_page_that_other_machines_reach_gets_a_sentence(
    tool: ModuleType, capfd: pytest.CaptureFixture
) -> None:
    tool.state_who_can_reach(['127.0.0.1', '::1'])
    assert capfd.readouterr().err == ''
    tool.state_who_can_reach(['0.0.0.0', '::'])
    words = capfd.readouterr().err
    assert 'listens at 0.0.0.0, ::: every machine that can reach this one' in words
    assert tool.parse_args([]).host == '127.0.0.1'
