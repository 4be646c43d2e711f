"""Logs and curves tell of a run; a full disk under them must not end it."""

import functools
import logging
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from mmengine.visualization import LocalVisBackend, Visualizer

from mmtimesformer.compat.upstream import require_attributes
from mmtimesformer.terminal import echo

require_attributes(LocalVisBackend, '_dump', used_by=__name__)
require_attributes(Visualizer, '_vis_backends', used_by=__name__)

DRAWING = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


def forgive_visualizer(visualizer: Any, warn: Callable[[str], object]) -> None:
    """Let a visualizer's backends lose what they cannot write, and say so once for each.

    ``scalars.json`` gets null in the place of NaN and infinite values, which JSON does not have.
    """
    for name, backend in visualizer._vis_backends.items():
        if isinstance(backend, LocalVisBackend):
            backend._dump = _without_nan(backend._dump)
        told: list[str] = []
        for method in DRAWING:
            setattr(backend, method, _forgiving(getattr(backend, method), name, told, warn))


def _without_nan(dump: Callable[..., None]) -> Callable[..., None]:
    def dump_finite(values: dict[str, Any], *args: Any) -> None:
        dump({name: _finite_or_none(value) for name, value in values.items()}, *args)

    return dump_finite


def _finite_or_none(value: Any) -> Any:
    is_float = isinstance(value, float | np.floating)
    return None if is_float and not math.isfinite(value) else value


def _forgiving(
    write: Callable[..., Any], name: str, told: list[str], warn: Callable[[str], object]
) -> Callable[..., Any]:
    @functools.wraps(write)
    def forgiving(*args: Any, **kwargs: Any) -> Any:
        try:
            return write(*args, **kwargs)
        except OSError as error:
            if not told:
                told.append(name)
                warn(f'{name} could not write ({error}): curves and pictures may have gaps')

    return forgiving


def forgive_log_file(handler: logging.FileHandler) -> None:
    """Say once that a log file cannot be written, instead of a stack trace for each line."""
    told: list[str] = []

    def say_once(record: logging.LogRecord) -> None:
        if not told:
            told.append(handler.baseFilename)
            error = sys.exc_info()[1]
            echo(f'{handler.baseFilename} cannot be written: {error}', file=sys.stderr)

    handler.handleError = say_once  # type: ignore[method-assign]
