"""Compile a backbone for inference by ``torch.compile``: fused operations, prepacked weights.

The weights are constants of the compiled code (*frozen*), so it is for a model that is not trained
any more. There is one compilation for each shape of a batch. Batches are filled up to 1, 2, 4, 8 …
videos, and the rows of the filling are dropped, so that few shapes occur. What was compiled stays
in a folder of the user's cache: the next process finds it there.
"""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtimesformer.terminal import echo

FOLDER = 'TORCHINDUCTOR_CACHE_DIR'
MOST_SHAPES = 64  # compilations in one process


def check_compiler() -> None:
    """Refuse to compile where there is no C++ compiler.

    Raises:
        ValueError: There is none.
    """
    usual = {'darwin': 'clang++', 'win32': 'cl'}.get(sys.platform, 'g++')
    compiler = os.environ.get('CXX') or usual
    if shutil.which(compiler.split()[0]) is None:
        raise ValueError(
            f"speed='compiled' needs the C++ compiler {compiler}, and this machine has none; "
            "install it, set CXX to another, or give speed='exact'"
        )


def cache_folder() -> Path:
    """Return the folder where compiled code stays: that of the variable, or the user's cache.

    NOTE: Inductor sets the variable itself, to a folder for temporary files, which is lost at a
    restart.
    """
    given = Path(os.environ.get(FOLDER) or '/')
    is_inductors = given.name.startswith('torchinductor_')
    if given.name and not (is_inductors and given.parent == Path(tempfile.gettempdir())):
        return given
    base = os.environ.get('XDG_CACHE_HOME') or Path('~/.cache').expanduser()
    return Path(base) / 'mmtimesformer' / 'inductor'


class Compiled:
    """Run a backbone as compiled code.

    Args:
        backbone: In evaluation mode; its weights are not to change any more.

    Shape: those of the backbone, for any number of videos.

    Raises:
        ValueError: In a call: the compilation failed.
    """

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self._compiled = torch.compile(
            backbone, fullgraph=True, dynamic=False, options={'freezing': True}
        )
        self._known: set[tuple[Any, ...]] = set()

    def __call__(self, video: Tensor) -> Any:
        portion = self.backbone._videos_at_a_time(video)
        if portion is None:
            return self._run(video)
        full = 2 ** (portion.bit_length() - 1)
        return join([self._run(videos) for videos in video.split(full)])

    def _run(self, videos: Tensor) -> Any:
        count = len(videos)
        filled = videos.new_zeros((filled_up(count), *videos.shape[1:]))
        filled[:count] = videos
        key = (filled.shape, filled.dtype, self.backbone.out_type, torch.get_num_threads())
        with _settings():
            if key in self._known:
                return rows(self._compiled(filled), count)
            self._known.add(key)
            with _progress(filled):
                return rows(self._compiled(filled), count)


def filled_up(count: int) -> int:
    """Return the least power of two that is not below ``count``."""
    return 1 << (count - 1).bit_length()


def rows(output: Any, count: int) -> Any:
    """Return the first rows of a tensor, or of each of a tuple of tensors."""
    if isinstance(output, Tensor):
        return output[:count]
    return tuple(rows(one, count) for one in output)


def join(outputs: list[Any]) -> Any:
    """Join outputs of several portions of a batch."""
    if len(outputs) == 1:
        return outputs[0]
    if isinstance(outputs[0], Tensor):
        return torch.cat(outputs)
    return tuple(join(list(same)) for same in zip(*outputs, strict=True))


def _settings() -> AbstractContextManager[None]:
    """Set the cache's folder, for this process, and allow a compilation for every shape."""
    os.environ[FOLDER] = str(cache_folder())
    settings: AbstractContextManager[None] = torch._dynamo.config.patch(recompile_limit=MOST_SHAPES)
    return settings


@contextmanager
def _progress(videos: Tensor) -> Iterator[None]:
    """Print what is being compiled, and how long it took.

    Raises:
        ValueError: The compilation failed.
    """
    b, _, t, height, width = videos.shape
    what = f'{b} x {t} frames of {height} x {width}'
    echo(f'compiling the model for {what}, up to a minute …', file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        yield
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ValueError(
            f"speed='compiled' failed for {what} ({type(error).__name__}: {reason}); give another "
            f'speed, or remove {cache_folder()} if a file in it is damaged'
        ) from error
    seconds = time.perf_counter() - start
    echo(f'compiled in {seconds:.0f} s; its code stays in {cache_folder()}', file=sys.stderr)
