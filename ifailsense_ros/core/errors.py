"""Errors a user can cause. Their text is one line: what is wrong, where, what to do."""


class IFailSenseError(Exception):
    """A mistake in what the user gave us. The CLI prints it as one line and exits with 2."""


class ImageError(IFailSenseError):
    """An image message that cannot be decoded (unknown encoding, truncated, ...)."""


class CheckpointError(IFailSenseError):
    """A checkpoint folder that is incomplete, altered or of another schema version."""


class BagError(IFailSenseError):
    """A rosbag2 folder that cannot be read, or lacks a topic."""


class DataError(IFailSenseError):
    """A data set file that is corrupt or of another version."""


class ConfigError(IFailSenseError):
    """A parameter or setting outside its range."""


class DetectorStopped(IFailSenseError):
    """A detector that will not judge the next episode either: it must not be asked on and on."""


def text_of(error: object) -> str:
    """The text of another library's error, fit for the middle of one of our lines; the name of its
    type where it has none.
    """
    return " ".join(str(error).split())[:200] or type(error).__name__
