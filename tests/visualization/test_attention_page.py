"""The attention page stores every weight, and shows the chosen one in a browser."""

import base64
import json
import re
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from mmtimesformer import TimeSformer
from mmtimesformer.inference import Prediction
from mmtimesformer.visualization import attention_page
from mmtimesformer.visualization.attention import AttentionView
from mmtimesformer.visualization.attention_page import decode, encode, write_page
from tests.page_requirements import in_a_browser, with_axe

from .accessibility import serious_issues
from .browser import Browser
from .layout import at_every_size, layout_faults

T, H, W = 3, 2, 5
P = H * W
every_scheme = pytest.mark.parametrize(
    'attention_type', ['divided_space_time', 'joint_space_time', 'space_only']
)


def attention_of(cfg: dict[str, Any], label: str = 'left', **changes: Any) -> AttentionView:
    """A clip and its attention, of a model whose maps are not flat."""
    arguments = {**cfg, 'temporal_init': 'random', **changes}
    del arguments['type']
    model = TimeSformer(**arguments).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    frames = np.random.default_rng(0).integers(0, 255, (T, H * 8, W * 8, 3), np.uint8)
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 255
    maps = model.attention_maps(video, score=lambda cls: cls[:, 0])
    prediction = Prediction(
        'a.mp4', [label, 'b'], [0.9, 0.1], [0, 1], np.zeros(2), 'mean of softmax'
    )
    return AttentionView(frames, np.arange(T) / 5, maps, prediction, 0, label)


def data_of(path: Path) -> dict[str, Any]:
    (text,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.DOTALL
    )
    return json.loads(text)


def rows_of(text: str, row: int) -> np.ndarray:
    return decode(zlib.decompress(base64.b64decode(text)), row)


# What is stored


def test_codes_are_within_half_a_percent_of_the_largest_of_their_row() -> None:
    weights = np.random.default_rng(0).exponential(size=(7, 11, 23)).astype(np.float32) ** 3
    weights /= weights.sum(-1, keepdims=True)
    weights[0, 0] = 0
    found = decode(encode(weights), 23).reshape(weights.shape)
    assert (abs(found - weights) <= 0.004 * weights.max(-1, keepdims=True)).all()
    assert (found.argmax(-1) == weights.argmax(-1)).mean() > 0.98


@every_scheme
def test_the_page_holds_every_weight(
    attention_type: str, tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    attention = attention_of(tiny_backbone_cfg, attention_type=attention_type)
    report = write_page(attention, tmp_path / 'page.html')
    assert report.layers == report.with_heads == [0, 1]
    assert report.size == report.path.stat().st_size
    for layer in data_of(report.path)['layers']:
        number = layer['number']
        if attention_type == 'joint_space_time':
            found = rows_of(layer['space'], 1 + P * T).reshape(4, 1 + P * T, 1 + P * T)
            expected = attention.maps.joint(number)[0].numpy()
            # (p t) in the model, (t p) in the page
            patches = rearrange(found[:, 1:, 1:], 'k (t p) (u q) -> k (p t) (q u)', t=T, u=T)
            close(patches, expected[:, 1:, 1:])
            close(rearrange(found[:, 0, 1:], 'k (t p) -> k (p t)', t=T), expected[:, 0, 1:])
            close(found[:, 0, 0], expected[:, 0, 0])
            continue
        found = rows_of(layer['space'], 1 + P).reshape(4, T, 1 + P, 1 + P)
        close(found, attention.maps.spatial(number)[0].transpose(0, 1).numpy())
        if attention_type == 'divided_space_time':
            found = rows_of(layer['time'], T).reshape(4, P, T, T)
            close(found, attention.maps.temporal(number)[0].transpose(0, 1).numpy())
        else:
            assert 'time' not in layer


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert abs(found - expected).max() <= 0.004 * expected.max()


def test_where_room_is_short_the_last_layers_and_the_means_come_first(
    tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    attention = attention_of(tiny_backbone_cfg, num_layers=3)
    layer = data_of(write_page(attention, tmp_path / 'all.html').path)['layers'][2]
    one = len(layer['space']) + len(layer['time'])  # of its four heads
    rooms = {0.0: ([2], []), one: ([0, 1, 2], []), 1.8 * one: ([0, 1, 2], [2])}
    for room, (layers, with_heads) in rooms.items():
        report = write_page(attention, tmp_path / 'page.html', megabytes=room / 1e6)
        assert (report.layers, report.with_heads) == (layers, with_heads), room
        packed = data_of(report.path)['layers']
        assert [bool(layer['heads']) for layer in packed] == [n in with_heads for n in layers]
    assert 'the mean of heads of the others' in str(report)
    mean = rows_of(packed[0]['space'], 1 + P).reshape(T, 1 + P, 1 + P)
    close(mean, attention.maps.spatial(0)[0].mean(1).numpy())


def test_chosen_layers_alone_are_in_the_page(
    tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    attention = attention_of(tiny_backbone_cfg)
    report = write_page(attention, tmp_path / 'page.html', layers=[-2])
    assert report.layers == [0]
    assert [layer['number'] for layer in data_of(report.path)['layers']] == [0]
    with pytest.raises(ValueError, match='layer 2 is not stored; choose from 0, 1'):
        write_page(attention, tmp_path / 'page.html', layers=[2])


def test_a_clip_too_large_for_a_page_is_refused(
    tiny_backbone_cfg: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_page, 'LARGEST_MAP', 100)
    with pytest.raises(ValueError, match='363 weights in this clip.*use fewer frames'):
        write_page(attention_of(tiny_backbone_cfg), tmp_path / 'page.html')
    assert not list(tmp_path.iterdir())


def test_the_page_loads_nothing_from_elsewhere(
    tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    name = '</script><b>&"'
    page = write_page(attention_of(tiny_backbone_cfg, name), tmp_path / 'page.html').path
    text = page.read_text()
    assert not re.findall(r'https?://|<link|<img|src=|@import|fetch\(', text)
    assert text.count('</script>') == 2
    assert data_of(page)['prediction'][0]['name'] == name
    assert [file.name for file in tmp_path.iterdir()] == ['page.html']


# In a browser


def picture(browser: Browser, canvas: str = '#stage') -> str:
    return browser.run(f'return document.querySelector({canvas!r}).toDataURL()')


def reads(browser: Browser, words: str) -> None:
    """Wait until the sentence below the large picture has these words."""
    found = ''
    for _ in range(50):
        found = browser.run('return document.getElementById("sentence").textContent')
        if words in found.replace('\u00a0', ' '):
            return
        time.sleep(0.1)
    raise AssertionError(f'{words!r} is not in {found!r}')


@in_a_browser
@every_scheme
def test_the_page_fits_a_phone_and_a_laptop(
    browser: Browser, attention_type: str, tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    attention = attention_of(
        tiny_backbone_cfg, 'a_name_without_a_space_' * 8, attention_type=attention_type
    )
    page = write_page(attention, tmp_path / 'page.html').path
    for form in at_every_size(browser, page, 'document.body.dataset.ready === "yes"'):
        assert layout_faults(browser) == [], form


@in_a_browser
@every_scheme
def test_a_browser_shows_the_chosen_weights(
    browser: Browser, attention_type: str, tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    attention = attention_of(tiny_backbone_cfg, attention_type=attention_type)
    browser.open(write_page(attention, tmp_path / 'page.html').path)
    browser.click('#stage', 0.5 / W, 0.5 / H)
    browser.click('#film button:nth-child(1)')
    reads(browser, 'row 0, column 0 at 0.00')
    seen = {picture(browser)}

    def is_new(what: str) -> None:
        shown = picture(browser)
        assert shown not in seen, what
        seen.add(shown)

    browser.click('#stage', 3.5 / W, 1.5 / H)
    reads(browser, 'row 1, column 3')
    is_new('another patch')
    browser.click('#film button:nth-child(2)')
    reads(browser, 'row 1, column 3 at 0.20')
    is_new('another frame')
    browser.click('#layers button:nth-child(1)')
    reads(browser, 'Layer 0, the mean of heads')
    is_new('another layer')
    browser.click('#heads button:nth-child(4)')
    reads(browser, 'Layer 0, head 2')
    is_new('another head')

    # The numbers on the page are those of the maps.
    token, maps = 1 * W + 3, attention.maps
    if attention_type == 'joint_space_time':
        weights = maps.joint(0)[0, 2, 1 + token * T + 1, 1:].reshape(P, T).T
        frame = int(weights.sum(1).argmax())
        expected = [f'{0.2 * frame:.2f} s ({percent(weights[frame].sum())} in total)']
        expected.append(place_of(weights[frame]))
    else:
        expected = [place_of(maps.spatial(0)[0, 1, 2, 1 + token, 1:])]
    if attention_type == 'divided_space_time':
        along = maps.temporal(0)[0, token, 2, 1]
        expected.append(f'over time most to {0.2 * int(along.argmax()):.2f} s')
        expected.append(percent(along.max()))
    for words in expected:
        reads(browser, words)

    browser.press('\ue012')  # arrow left
    reads(browser, 'row 1, column 2')
    is_new('a patch by key')
    browser.press('.')
    reads(browser, 'at 0.40')
    is_new('a frame by key')
    browser.press('c')
    reads(browser, 'The class token')
    is_new('the class token')
    before = picture(browser, '#summary canvas')
    browser.click('#methods button:nth-child(3)')
    assert picture(browser, '#summary canvas') != before
    assert browser.complaints() == []


def percent(x: Any) -> str:
    x = float(x)
    return f'{100 * x:.{1 if x < 0.0995 else 0}f} %'


def place_of(weights: torch.Tensor) -> str:
    best = int(weights.argmax())
    return f'row {best // W}, column {best % W} ({percent(weights[best])})'


@in_a_browser
def test_a_page_of_means_and_of_unkept_layers_works_in_a_browser(
    browser: Browser, tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    attention = attention_of(tiny_backbone_cfg)
    browser.open(write_page(attention, tmp_path / 'page.html', megabytes=0).path)
    assert "1 of the model's 2 layers" in browser.run(
        'return document.getElementById("layers-note").textContent'
    )
    assert browser.run('return document.querySelectorAll("#heads button").length') == 1
    browser.run('document.querySelector("#stage").focus()')
    browser.press('+')  # there is no other head
    reads(browser, 'Layer 1, the mean of heads')
    assert browser.complaints() == []


READY = 'document.body.dataset.ready === "yes"'


@with_axe
@in_a_browser
@every_scheme
def test_a_page_fits_both_widths_asks_for_nothing_and_axe_finds_no_serious_issue(
    browser: Browser, attention_type: str, tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    long = 'a_name_without_a_space_' * 5
    attention = attention_of(tiny_backbone_cfg, long, attention_type=attention_type)
    page = write_page(attention, tmp_path / 'page.html').path
    browser.requests()
    for where in at_every_size(browser, page, READY):
        asked = [one for one in browser.requests() if not one.startswith(('data:', 'blob:'))]
        assert asked == [page.as_uri()], where
        assert serious_issues(browser) == [], where
        assert layout_faults(browser) == [], where


@in_a_browser
def test_keys_work_in_their_part_alone_and_every_control_has_a_name(
    browser: Browser, tiny_backbone_cfg: dict[str, Any], tmp_path: Path
) -> None:
    browser.open(write_page(attention_of(tiny_backbone_cfg), tmp_path / 'page.html').path)
    before = browser.run('return document.querySelector("#sentence").textContent')
    browser.press('c')  # the focus is elsewhere
    assert browser.run('return document.querySelector("#sentence").textContent') == before
    names = []
    for _ in range(60):
        browser.press('\ue004')
        name = 'const e = document.activeElement; return (e.ariaLabel || e.textContent).trim()'
        names.append(browser.run(name))
        if names[-1] == 'head 2':
            browser.press('\ue007')
            break
    assert all(names)
    assert {'attention rollout', 'the class token', 'layer 0', 'mean of heads'} <= set(names)
    reads(browser, 'head 2')
    browser.press('c')
    reads(browser, 'The class token')
