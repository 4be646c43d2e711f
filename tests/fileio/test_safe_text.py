import ast
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from mmtimesformer.fileio.safe_text import (
    TooLargeError,
    parse_json,
    parse_python,
    parse_yaml,
    read_json,
    read_text,
)


def test_honest_texts_are_read(tmp_path: Path) -> None:
    value = {'id2label': {str(i): f'class {i}' for i in range(20_000)}, 'é': [1.5, None, True]}
    (tmp_path / 'config.json').write_text(json.dumps(value))
    assert read_json(tmp_path / 'config.json') == value
    assert parse_yaml('A: {B: [1, 2.5]}\nC: text', 'x') == {'A': {'B': [1, 2.5]}, 'C': 'text'}
    (name, node), *_ = parse_python('a = [-1, 0.5]\nb = f(a)\nimport os', 'x')
    assert name == 'a' and ast.literal_eval(node) == [-1, 0.5]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'x.json is not JSON'),
        ('[' * 10**5, 'x.json is nested more than 100 levels'),
        ('[' * 200 + ']' * 200, 'x.json is nested more than 100 levels'),
        ('[' + '[],' * 10**6 + '[]]', 'x.json has 1,000,002 lists'),
        ('9' * 5000, 'x.json is not JSON'),
        ('"' + 'x' * (9 << 20) + '"', 'x.json has 9,437,186'),
    ],
)
def test_json_without_end_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / 'x.json').write_text(text)
    for read in (lambda: read_json(tmp_path / 'x.json'), lambda: parse_json(text, 'x.json')):
        with pytest.raises(ValueError, match=message):
            read()


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'binary').write_bytes(b'\xff\xfe')
    for name, message in (('pipe', 'not a file'), ('.', 'not a file'), ('binary', 'not text')):
        with pytest.raises(ValueError, match=message):
            read_text(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='nowhere'):
        read_text(tmp_path / 'nowhere')


@pytest.mark.parametrize('text', ['a: &a [1]\nb: *a', '[' * 300, '- a\n' * 10**5])
def test_yaml_without_end_is_refused(text: str) -> None:
    with pytest.raises(TooLargeError):
        parse_yaml(text, 'the config')


@pytest.mark.parametrize('text', ['a: 2001-99-99', 'a: !!python/name:os.system', '? [a]\n: 1', '{'])
def test_malformed_yaml_is_an_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text, 'the config')


@pytest.mark.parametrize(
    'text', ['x = ' + 'a.' * 10**4 + 'b', 'x = ' + '1+' * 10**4 + '1', '# ' + 'x' * 300_000]
)
def test_python_without_end_is_refused(text: str) -> None:
    with pytest.raises(TooLargeError):
        parse_python(text, 'the config')


@pytest.mark.parametrize('text', ['x = (', '(' * 10**4, 'x = ' + '-' * 4000 + '1', 'x\0 = 1'])
def test_python_that_cannot_be_parsed_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match='the config cannot be read'):
        parse_python(text, 'the config')


@pytest.mark.parametrize(
    'text', ["x = '" + "\\'" * 120_000, '\'"' * 120_000, "'\\\n" * 80_000, '"""' * 80_000]
)
def test_quotes_without_end_take_no_time(text: str) -> None:
    begun = time.process_time()
    with suppress(ValueError):
        parse_python(text, 'the config')
    assert time.process_time() - begun < 2
