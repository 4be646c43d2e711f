"""Parse and check the command lines of all tools: ranges, ``--cfg-options``, output paths.

Importing this module imports neither PyTorch nor MMEngine, so that ``--help`` is fast. A tool
imports what it needs inside the functions that run after :func:`parse`.
"""

import argparse
import math
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmtimesformer.terminal import ArgumentParser

CHECKPOINTS = ('.pth', '.pyth', '.pt', '.bin', '.ckpt', '.safetensors', '.npz', '.pdparams')
NUMBER = re.compile(r'-\d+|-\d*\.\d+')  # no option, as in argparse
EXIT_CODES = {0: 'done', 1: 'an error', 2: 'a mistake on the command line'}
# Braces without a quote are not a dict: filename_tmpl=img_{:05}.jpg
IS_DICT = re.compile(r"""(?:^|[\[(,])\s*(?:dict\(|\{\s*['"])""")


class ToolParser(ArgumentParser):
    """The parser of a tool: one layout of the help, and options anywhere among the arguments.

    Args:
        doc: The tool's docstring: a sentence, details, and ``Examples:`` at the end.
        codes: Its exit codes besides 0, 1 and 2, by number, see :mod:`mmtimesformer.cli`.
        **options: Of :class:`argparse.ArgumentParser`.
    """

    def __init__(
        self, doc: str | None = None, codes: Mapping[int, str] | None = None, **options: Any
    ) -> None:
        self.variable: dict[str, argparse.Action] = {}  # options that take any number of values
        self.long_options: set[str] = set()
        if doc is not None:
            options.setdefault('prog', program_name())
            about, _, examples = doc.partition('\nExamples:\n')
            examples = _as_started(textwrap.dedent(examples).strip(), options['prog'])
            options['description'] = about.strip()
            options['epilog'] = _epilog(examples, {**EXIT_CODES, **(codes or {})})
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument; the name of a positional one is shown in capitals."""
        if names and not names[0].startswith('-') and 'choices' not in options:
            options.setdefault('metavar', names[0].upper())
        action = super().add_argument(*names, **options)
        self.long_options.update(name for name in action.option_strings if name.startswith('--'))
        if action.nargs in ('?', '*', '+'):
            self.variable.update(dict.fromkeys(action.option_strings, action))
        return action

    def format_usage(self) -> str:
        """Return the usage in one line: required arguments, and ``[options]`` for the others."""
        self.usage = self.usage or self._short_usage()
        return super().format_usage()

    def format_help(self) -> str:
        """Return the help, with the short usage."""
        self.usage = self.usage or self._short_usage()
        return super().format_help()

    def _short_usage(self) -> str:
        formatter = argparse.HelpFormatter(self.prog, width=1000)
        shown = [action for action in self._actions if action.required or not action.option_strings]
        formatter.add_usage(None, shown, ())
        line = formatter.format_help().removeprefix('usage: ').strip()
        return line.replace(self.prog, f'{self.prog} [options]', 1).replace('%', '%%')

    def variable_option(self, word: str) -> argparse.Action | None:
        """Return the option with any number of values that a word names; it may be shortened."""
        near = {name for name in self.long_options if name.startswith(word)}
        name = near.pop() if word.startswith('--') and len(near) == 1 else word
        return self.variable.get(name)


def program_name() -> str:
    """Return how this tool was started: ``mmtimesformer predict``, or ``tools/predict.py``.

    ``python -m mmtimesformer`` sets ``COMMAND`` in the module that it runs.
    """
    command = getattr(sys.modules['__main__'], 'COMMAND', None)
    if command is not None:
        return str(command)
    parts = Path(sys.argv[0]).parts
    if 'tools' in parts[:-1]:
        start = len(parts) - 1 - parts[::-1].index('tools')
        return Path(*parts[start:]).as_posix()
    return Path(sys.argv[0]).name


def _as_started(examples: str, program: str) -> str:
    """Write examples as the user started the tool: a checkout has the files alone."""
    if program.endswith('.py'):
        command = rf'\bmmtimesformer {Path(program).stem}\b'
        return re.sub(command, f'python {program}', examples)
    return examples


def _epilog(examples: str, codes: Mapping[int, str]) -> str:
    shown = f'examples:\n{textwrap.indent(examples, "  ")}\n\n' if examples else ''
    return f'{shown}exit codes:\n' + '\n'.join(
        f'  {code:<4}{meaning}' for code, meaning in sorted(codes.items())
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments ``[CONFIG] CHECKPOINT``, which ``inference.model_source`` reads."""
    parser.add_argument(
        'config',
        nargs='?',
        help='a config file, or the name of a shipped config; leave it out where the checkpoint '
        'is enough',
    )
    parser.add_argument(
        'checkpoint',
        help='the weights: a file, a folder, https://…, hf://owner/name or owner/name; or a '
        'shipped config by name, for its published weights',
    )


def parse(parser: ToolParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line whose options may stand between its positional arguments.

    Python's ``parse_args`` fails for ``predict.py VIDEO --topk 3 CONFIG CHECKPOINT``, because it
    takes the optional CONFIG as absent at the first option. An option with any number of values
    takes the words that can be its values: CONFIG is none in ``--cfg-options a=1 CONFIG``.

    Afterwards the components of the package are registered, which imports PyTorch.
    """
    args = parser.parse_intermixed_args(
        options_last(parser, sys.argv[1:] if argv is None else argv)
    )
    from mmtimesformer import register_components

    register_components()
    return args


def options_last(parser: ToolParser, words: Sequence[str]) -> list[str]:
    """Move options with any number of values, and their values, behind the other words."""
    end = words.index('--') if '--' in words else len(words)
    others: list[str] = []
    moved: list[str] = []
    rest = list(words[:end])
    while rest:
        word = rest.pop(0)
        option = parser.variable_option(word)
        if option is None:
            others.append(word)
            continue
        moved.append(word)
        while rest and _is_value(option, rest[0], is_first=moved[-1] == word):
            moved.append(rest.pop(0))
            if option.nargs == '?':
                break
    return [*others, *moved, *words[end:]]


def _is_value(option: argparse.Action, word: str, is_first: bool) -> bool:
    """Whether an option takes a word as its value.

    A first word that is wrong is taken if it can be no argument of another kind, so that argparse
    reports the wrong value.
    """
    if word.startswith('-') and not NUMBER.fullmatch(word):
        return False
    if isinstance(option, ConfigOptions):
        key, equals, _ = word.partition('=')
        is_path = bool({'/', os.sep} & {*key}) or Path(word).exists()
        return is_first or bool(equals and not is_path)
    try:
        value = option.type(word) if callable(option.type) else word
        fits = option.choices is None or value in option.choices
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        fits = False
    return fits or (is_first and (option.nargs != '?' or word.isalnum()))


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: a whole number in a range, ends included."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            rule = f'from {least} on' if most is None else f'from {least} to {most}'
            raise argparse.ArgumentTypeError(f'{text!r} is not a whole number {rule}')
        return value

    return convert


def positive_number(text: str) -> float:
    """Convert an argument that is a finite number above 0, such as seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f'{text!r} is not a number above 0')
    return value


class ConfigOptions(argparse.Action):
    """``--cfg-options KEY=VALUE …``, as MMEngine reads them, with errors that name the option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str] | None,
        option_string: str | None = None,
    ) -> None:
        from mmengine.config import DictAction

        reader = DictAction(self.option_strings, self.dest, self.nargs)
        for pair in values or ():
            key, equals, value = pair.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(f'{option_string} {pair}: write KEY=VALUE, such as model.backbone.x=3')
            if not value:
                parser.error(f'{option_string} {pair}: {key} has no value; write None or \'""\'')
            for opening, closing in ('()', '[]'):
                if value.count(opening) != value.count(closing):
                    parser.error(f'{option_string} {pair}: a {opening} or {closing} is missing')
            if IS_DICT.search(value):
                parser.error(
                    f'{option_string} {pair}: a dict cannot be given here; write its keys one by '
                    f'one, such as {key}.type=X or {key}.0.type=X, or put it into a config file'
                )
            try:
                reader._parse_iterable(value)
            except (RecursionError, AssertionError):
                parser.error(
                    f'{option_string} {pair}: the brackets do not make a list or a tuple; write '
                    f'[a,b], (a,b) or [(a,b),(c,d)]'
                )
        reader(parser, namespace, values, option_string)


def check_output(path: str | os.PathLike[str], option: str, *, folder: bool = False) -> None:
    """Check that an output can be written, before the work that fills it.

    Missing folders must be possible to create; none is created here.

    Raises:
        OSError: It cannot be written; the message has the reason and the option.
    """
    path = Path(path).expanduser()
    if not folder and path.is_dir():
        raise IsADirectoryError(f'{option} {path} is a folder; give the path of a file')
    place = path if folder else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    reason = 'Not a directory'
    if place.is_dir():
        try:
            with tempfile.TemporaryFile(dir=place):
                return
        except OSError as error:
            reason = error.strerror or str(error)
    raise OSError(f'{option} {path} cannot be written ({place}: {reason}); give another path')


def check_order(config: str | None, checkpoint: str) -> None:
    """Refuse a config where a checkpoint is expected, and the reverse.

    Raises:
        ValueError: They are in the wrong order, or one is given twice or missing.
    """
    if config is not None and str(config).endswith(CHECKPOINTS):
        raise ValueError(
            f'{config} is a checkpoint, where a config is expected; the order is CONFIG CHECKPOINT'
        )
    from mmtimesformer.config.find import shipped_configs

    name = str(checkpoint)
    if not name.endswith('.py') and (Path(name).exists() or name not in shipped_configs()):
        return
    raise ValueError(
        f'{checkpoint} is a config, where a checkpoint is expected; '
        + ('give CONFIG and CHECKPOINT' if config is None else 'the order is CONFIG CHECKPOINT')
    )


def resume_checkpoint(text: str) -> str:
    """Return the value of ``--resume``; a config is none, so that it may follow ``--resume``."""
    from mmtimesformer.config.find import shipped_configs

    if text.endswith('.py') or (not Path(text).exists() and text in shipped_configs()):
        raise argparse.ArgumentTypeError(f'{text} is a config, where a checkpoint is expected')
    return text


def file_ending_in(*endings: str) -> Callable[[str], Path]:
    """Return an argparse type: a path with one of these endings."""

    def convert(text: str) -> Path:
        if not text.endswith(endings):
            raise argparse.ArgumentTypeError(f'{text} must end in {" or ".join(endings)}')
        return Path(text)

    return convert
