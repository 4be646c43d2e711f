"""Exceptions for videos that cannot be read, and which errors of readers count as such."""

from typing import Any


class UnreadableVideo(ValueError):  # noqa: N818 (a name without Error)
    """A video that cannot be used.

    Args:
        message: What is wrong, and what to do; it names the file.
        reason: What is wrong, in a few words.
    """

    def __init__(self, message: str, reason: str = '') -> None:
        super().__init__(message)
        self.reason = reason or message


class MissingVideo(UnreadableVideo, FileNotFoundError):  # noqa: N818
    """A video that is not there."""


def is_of_reader(error: Exception, filename: Any) -> bool:
    """Whether an error means that a video cannot be read, not that some code is wrong.

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
    """Return an error of a reader in one line."""
    if isinstance(error, UnreadableVideo):
        return error.reason
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
