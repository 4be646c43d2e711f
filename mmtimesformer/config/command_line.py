"""Parse and check the command lines of all tools: ranges, ``--cfg-options``, output paths."""

import argparse
import math
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.config import DictAction

CHECKPOINTS = ('.pth', '.pyth', '.pt', '.bin', '.ckpt', '.safetensors', '.npz', '.pdparams')
# Braces without a quote are not a dict: filename_tmpl=img_{:05}.jpg
IS_DICT = re.compile(r"""(?:^|[\[(,])\s*(?:dict\(|\{\s*['"])""")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line whose options may stand between its positional arguments.

    Python's ``parse_args`` fails for ``predict.py VIDEO --topk 3 CONFIG CHECKPOINT``, because it
    takes the optional CONFIG as absent at the first option.
    """
    return parser.parse_intermixed_args(argv)


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


class ConfigOptions(DictAction):
    """``--cfg-options KEY=VALUE …``, as MMEngine reads them, with errors that name the option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str] | None,
        option_string: str | None = None,
    ) -> None:
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
                self._parse_iterable(value)
            except (RecursionError, AssertionError):
                parser.error(
                    f'{option_string} {pair}: the brackets do not make a list or a tuple; write '
                    f'[a,b], (a,b) or [(a,b),(c,d)]'
                )
        super().__call__(parser, namespace, values, option_string)


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
