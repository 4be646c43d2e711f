"""What a video that cannot be read is told by, and told as."""

from typing import Any


class UnreadableVideo(ValueError):  # noqa: N818 (it is the video that errs)
    """A video that cannot be used.

    Args:
        letter: What is wrong, and what to do; it names the file.
        reason: What is wrong, in a few words.
    """

    def __init__(self, letter: str, reason: str = '') -> None:
        super().__init__(letter)
        self.reason = reason or letter


class MissingVideo(UnreadableVideo, FileNotFoundError):  # noqa: N818
    """A video that is not there."""


def is_of_reader(error: Exception, filename: Any) -> bool:
    """Whether an error tells that a video cannot be read, and not that some code is wrong.

    Besides our own reader's errors these are what MMAction2's ``DecordInit`` and ``PyAVInit`` let
    through: the errors of decord and PyAV, and of a file that is not there.
    """
    if isinstance(error, UnreadableVideo):
        return True
    if type(error).__module__.partition('.')[0] in ('decord', 'av'):
        return True
    if isinstance(error, OSError):
        return error.filename == filename
    return type(error) is RuntimeError and str(error).startswith('Error reading ')  # decord


def reason_of(error: Exception) -> str:
    """Tell an error of a reader in one line."""
    if isinstance(error, UnreadableVideo):
        return error.reason
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
