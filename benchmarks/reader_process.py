"""One reader of videos in a process of its own: its frames, and how long it takes for them.

benchmarks/readers.py starts it, with the packages of one reader in front of all others, and sends
one question in each line of standard input; each answer is one line of standard output. The two
decord packages share a name, and a reader may end its process: hence the process.
"""

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from drawn_numbers import read_number

ALIKE = 12  # of 255: more, in the mean of a frame, and pixels are those of a damaged picture
CLIP, STRIDE = 8, 8  # frames of a clip, and from one of them to the next


class Decord:
    """decord, or decord2, which is imported by the same name."""

    def __init__(self, path: str) -> None:
        import decord

        self.video = decord.VideoReader(path, num_threads=1)

    def __len__(self) -> int:
        return len(self.video)

    def frames(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        return self.video.get_batch(list(indices)).asnumpy()


class TorchCodec:
    """torchcodec, whose exact mode reads all packets first."""

    def __init__(self, path: str, seek_mode: Any = 'exact') -> None:
        from torchcodec.decoders import VideoDecoder

        self.video = VideoDecoder(
            path, dimension_order='NHWC', num_ffmpeg_threads=1, seek_mode=seek_mode
        )

    def __len__(self) -> int:
        return len(self.video)

    def frames(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        return self.video.get_frames_at(indices=list(indices)).data.numpy()


class OpenCV:
    """OpenCV's ``VideoCapture``, set to the number of a frame unless that is the next one."""

    def __init__(self, path: str) -> None:
        import cv2

        self.video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self.video.isOpened():
            raise ValueError('not opened')
        self.next = 0

    def __len__(self) -> int:
        import cv2

        return int(self.video.get(cv2.CAP_PROP_FRAME_COUNT))

    def frames(self, indices: Sequence[int]) -> list[np.ndarray]:
        return [self.frame(i) for i in indices]

    def frame(self, index: int) -> np.ndarray:
        import cv2

        if index != self.next:
            self.video.set(cv2.CAP_PROP_POS_FRAMES, index)
        read, frame = self.video.read()
        if not read:
            raise ValueError(f'frame {index} not read')
        self.next = index + 1
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def ours(reader: str) -> Callable[[str], Any]:
    """Return what opens a video by this project, with one of its readers."""

    def open_video(path: str) -> Any:
        from mmtimesformer.datasets.transforms.decoding import Video

        return Video(path, reader)

    return open_video


READERS: dict[str, Callable[[str], Any]] = {
    'ours': ours('pyav'),
    'ours_decord': ours('decord'),
    'ours_torchcodec': ours('torchcodec'),
    'decord': Decord,
    'torchcodec': TorchCodec,
    'torchcodec_approximate': lambda path: TorchCodec(path, 'approximate'),
    'opencv': OpenCV,
}
MODULES = {'ours': 'av', 'opencv': 'cv2', 'torchcodec_approximate': 'torchcodec'}


def check(open_video: Callable[[str], Any], path: str) -> dict[str, Any]:
    """Ask a reader for each frame, and say which it returned.

    Returns:
        ``error``, if it did not open the file; else ``length``, the frames that it finds, and
        ``returned``, for each request a list of (frame asked for, number read from its pixels,
        whether its pixels are those of decoding everything), or of the error.
    """
    truth = np.load(f'{path}.npy')
    try:
        length = len(open_video(path))
    except Exception as error:
        return {'error': in_words(error, path)}
    numbers = list(range(len(truth)))
    alone = random.Random(0).sample(numbers, len(numbers))
    clips = [numbers[start::STRIDE][:CLIP] for start in range(0, len(numbers), 13)]
    requests = [(None, [i]) for i in alone], [(open_video, clip) for clip in clips]
    returned = [ask(open_video(path), numbers[:length], truth, path)]
    video = open_video(path)
    for opener, indices in [*requests[0], *requests[1]]:
        returned.append(ask(opener(path) if opener else video, indices, truth, path))
    return {'length': length, 'returned': returned}


def ask(video: Any, indices: list[int], truth: np.ndarray, path: str) -> list[Any]:
    """Ask a reader for frames of a file."""
    try:
        frames = video.frames(indices)
    except Exception as error:
        return [(i, in_words(error, path), False) for i in indices]
    return [(i, read_number(frame), is_alike(frame, truth[i]))
            for i, frame in zip(indices, frames, strict=True)]  # fmt: skip


def is_alike(frame: np.ndarray, true: np.ndarray) -> bool:
    """Whether a frame has the pixels of another, but for the rounding of colours."""
    if frame.shape != true.shape:
        return False
    return bool(np.abs(frame.astype(int) - true).mean() <= ALIKE)


def in_words(error: Exception, path: str) -> str:
    """Return an error in one line, without the folder of the file."""
    return (str(error).replace(path, Path(path).name).strip().splitlines() or [''])[0][
        :200
    ] or type(error).__name__


def measure(open_video: Callable[[str], Any], path: str, indices: list[int]) -> float:
    """Return the milliseconds of CPU time in which a file is opened and frames are read."""
    start = time.process_time()
    frames = open_video(path).frames(indices)
    assert len(frames) == len(indices)
    return 1e3 * (time.process_time() - start)


def versions(name: str) -> dict[str, str]:
    """Return the version of a reader's package."""
    module = __import__(MODULES.get(name, name.removeprefix('ours_')))
    return {'version': module.__version__, 'folder': str(Path(module.__file__).parent.parent)}


def answer(name: str, question: dict[str, Any]) -> dict[str, Any]:
    """Answer one question."""
    if 'check' in question:
        return check(READERS[name], question['check'])
    if 'measure' in question:
        milliseconds = measure(READERS[name], question['measure'], question['indices'])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {'ms': milliseconds, 'peak_mib': peak / 1024}
    return versions(name)


def main() -> int:
    """Answer the questions on standard input."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # readers print
    for line in sys.stdin:
        print(json.dumps(answer(sys.argv[1], json.loads(line))), file=answers, flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
