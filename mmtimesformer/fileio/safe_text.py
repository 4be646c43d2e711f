"""Read JSON, YAML and Python literals of untrusted files, bounded in size, depth and time.

Each error names the file, the limit and what to do.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

from mmtimesformer.fileio.safe_pickle import DEEPEST, RefusedError, check_bounded

LARGEST_JSON = 8 << 20  # bytes; the index of a model of 40,000 tensors
LARGEST_LITERALS = 256 << 10  # characters of a Python config; MMEngine's have 5,000 to 30,000
LARGEST_YAML = 64 << 10  # characters; the official configs have 4,000
BASE_CONTAINERS = 100_000  # lists and objects of a JSON text, and one more for each 16 characters
MOST_OPERATORS = 5000  # of a Python config, which needs none but minus
# An open quote matches to the end of its line, so that no text is scanned twice.
QUOTED = re.compile(r"""'(?:[^'\\\n]|\\.)*'?|"(?:[^"\\\n]|\\.)*"?""")
OPERATOR = re.compile(r'(?<!\d)\.(?!\d)|[+*/%@&|^~<>-]|\b(?:not|and|or|if|lambda)\b')


class TooLargeError(ValueError):
    """A text is larger or deeper than is read."""


def read_text(path: Path, largest: int = LARGEST_JSON) -> str:
    """Read a text file in UTF-8.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a regular file (reading a pipe blocks), too large, or not text.
    """
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist; check the path')
    if not path.is_file():
        raise ValueError(f'{path} is not a file; give the path of a regular file')
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f'{path} has {size:,} bytes, and at most {largest:,} are read')
    try:
        with path.open('rb') as file:
            content = file.read(largest + 1)
        return content.decode('utf-8')
    except UnicodeDecodeError:
        raise ValueError(f'{path} is not text in UTF-8; copy or download it again') from None


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no JSON, too large or too deep.
    """
    return parse_json(read_text(path, largest), str(path), largest)


def parse_json(text: str | bytes, what: str, largest: int = LARGEST_JSON) -> Any:
    """Read JSON from a text.

    Args:
        text: The JSON.
        what: Its name in errors, such as the path of its file.
        largest: Characters that it may have.

    Raises:
        ValueError: It is no JSON, too large or too deep.
    """
    if len(text) > largest:
        raise ValueError(f'{what} has {len(text):,} characters, and at most {largest:,} are read')
    opened = (
        text.count(b'[') + text.count(b'{')
        if isinstance(text, bytes)
        else text.count('[') + text.count('{')
    )
    if opened > BASE_CONTAINERS + len(text) // 16:
        raise ValueError(f'{what} has {opened:,} lists and objects of JSON, more than data needs')
    try:
        value = json.loads(text)
        check_bounded(value)
    except (RecursionError, RefusedError):
        raise ValueError(
            f'{what} is nested more than {DEEPEST} levels deep, which is refused; get it from a '
            'source you trust'
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f'{what} is not JSON: it is not text in UTF-8') from None
    except ValueError as error:  # also of a number of thousands of digits
        is_syntax = isinstance(error, json.JSONDecodeError)
        why = str(error).splitlines()[0][:200] if is_syntax else 'a number'
        raise ValueError(f'{what} is not JSON ({why}); copy or download it again') from None
    return value


def parse_yaml(text: str, what: str) -> Any:
    """Read plain values from YAML: no tags that make objects, and no aliases.

    Aliases of aliases grow without bound (a "billion laughs"); configs of checkpoints have none.

    Args:
        text: The YAML.
        what: Its name in errors.

    Raises:
        TooLargeError: It is too large or too deep, or has an alias.
        yaml.YAMLError: It is no YAML.
    """
    import yaml  # type: ignore[import-untyped]

    if len(text) > LARGEST_YAML:
        raise TooLargeError(
            f'{what} has {len(text):,} characters, and at most {LARGEST_YAML:,} are read'
        )

    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):  # without recursion; makes no objects
            if isinstance(event, yaml.AliasEvent):
                raise TooLargeError(f'{what} has an alias (*name); write the value itself')
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise TooLargeError(f'{what} is nested more than {DEEPEST} levels deep')
        return yaml.safe_load(text)
    except TooLargeError:
        raise
    except yaml.YAMLError:
        raise
    except Exception as error:  # a date of month 13, a number of thousands of digits
        raise yaml.YAMLError(f'a value cannot be read ({type(error).__name__})') from None


def parse_python(text: str, what: str) -> list[tuple[str, ast.expr]]:
    """Parse a Python config without running it; return its assignments.

    Args:
        text: The config.
        what: Its name in errors.

    Raises:
        TooLargeError: It is too large or too deep.
        ValueError: It is no Python.
    """
    if len(text) > LARGEST_LITERALS:
        raise TooLargeError(
            f'{what} has {len(text):,} characters; at most {LARGEST_LITERALS:,} are read'
        )
    code = QUOTED.sub('', text)
    operators = len(OPERATOR.findall(code))
    if operators > MOST_OPERATORS:
        raise TooLargeError(
            f'{what} has {operators:,} operators, and at most {MOST_OPERATORS:,} are read'
        )
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'{what} cannot be read ({type(error).__name__})') from None
    return [
        (statement.targets[0].id, statement.value)
        for statement in module.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    ]
