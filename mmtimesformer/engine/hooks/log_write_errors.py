"""Continue a run when its log or curves cannot be written, for example on a full disk."""

import functools
import logging
import sys
from collections.abc import Callable
from functools import partial

from mmengine.visualization import LocalVisBackend, Visualizer

from mmtimesformer.compat.upstream import require_attributes
from mmtimesformer.fileio.json_values import to_json
from mmtimesformer.terminal import echo

require_attributes(LocalVisBackend, '_dump', used_by=__name__)
require_attributes(Visualizer, '_vis_backends', used_by=__name__)

DRAWING = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


def tolerate_visualizer_write_errors(visualizer: Visualizer, warn: Callable[[str], object]) -> None:
    """Warn once for each backend that cannot write, instead of raising an error.

    ``scalars.json`` gets null instead of NaN and infinite values, which JSON does not have.
    """
    for name, backend in visualizer._vis_backends.items():
        if isinstance(backend, LocalVisBackend):
            backend._dump = _without_nan(backend._dump)
        warn_once = _once(warn)
        for method in DRAWING:
            setattr(backend, method, _tolerant(getattr(backend, method), name, warn_once))


def _without_nan(dump: Callable[..., None]) -> Callable[..., None]:
    return lambda values, *args: dump(to_json(values), *args)


def _once(warn: Callable[[str], object]) -> Callable[[str], None]:
    """Return a function that logs its first message only."""
    logged: list[str] = []

    def warn_once(message: str) -> None:
        if not logged:
            logged.append(message)
            warn(message)

    return warn_once


def _tolerant(
    write: Callable[..., object], name: str, warn: Callable[[str], object]
) -> Callable[..., object]:
    @functools.wraps(write)
    def tolerant(*args: object, **kwargs: object) -> object:
        try:
            return write(*args, **kwargs)
        except OSError as error:
            warn(f'{name} could not write ({error}): curves and pictures may have gaps')
            return None

    return tolerant


def tolerate_log_write_errors(handler: logging.FileHandler) -> None:
    """Print once that a log file cannot be written, instead of a stack trace for each line."""
    print_once = _once(partial(echo, file=sys.stderr))

    def handle_error(record: logging.LogRecord) -> None:
        print_once(f'{handler.baseFilename} cannot be written: {sys.exc_info()[1]}')

    handler.handleError = handle_error  # type: ignore[method-assign]
