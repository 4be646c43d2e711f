"""The error of videos that cannot be reached, as opposed to videos that are corrupt."""

PATIENCE = 300  # seconds for which videos are waited for
LONGEST_PAUSE = 30  # seconds between two tries


class StorageError(OSError):
    """Videos cannot be read from where they are stored; the message names what and why.

    It never counts as a corrupt video. A training saves and ends, see
    :class:`mmtimesformer.engine.StopOnSignalHook`.
    """
