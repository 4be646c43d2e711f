"""Which files of a folder are videos and which are images, by their names."""

#: Endings of video files, of the containers that the reader takes.
VIDEO_ENDINGS = {
    *('3g2', '3gp', 'amv', 'apng', 'asf', 'avi', 'divx', 'dv', 'f4v', 'flv', 'gif', 'gxf', 'ivf'),
    *('m1v', 'm2t', 'm2ts', 'm2v', 'm4v', 'mj2', 'mjpeg', 'mjpg', 'mkv', 'mod', 'mov', 'mp4'),
    *('mpe', 'mpeg', 'mpg', 'mpv', 'mts', 'mxf', 'nsv', 'nut', 'obu', 'ogg', 'ogm', 'ogv', 'qt'),
    *('rm', 'rmvb', 'tod', 'trp', 'ts', 'vob', 'webm', 'wmv', 'wtv', 'xvid', 'y4m'),
    *('264', '265', 'h264', 'h265', 'hevc'),
}
#: Endings of the images that a folder of frames may hold.
IMAGE_ENDINGS = {'jpg', 'jpeg', 'png'}
#: Endings of other images, which are not read: a frame among them would be missing.
OTHER_IMAGE_ENDINGS = {'avif', 'bmp', 'heic', 'jp2', 'jpe', 'ppm', 'tga', 'tif', 'tiff', 'webp'}


def is_video(name: str) -> bool:
    """Decide by the ending, and skip hidden files (unfinished ones are hidden here)."""
    return _visible_ending(name) in VIDEO_ENDINGS


def is_image(name: str) -> bool:
    """Whether a file is a frame, by its ending; hidden files are none."""
    return _visible_ending(name) in IMAGE_ENDINGS


def is_other_image(name: str) -> bool:
    """Whether a file is an image of a kind that is not read, by its ending."""
    return _visible_ending(name) in OTHER_IMAGE_ENDINGS


def _visible_ending(name: str) -> str:
    stem, _, ending = name.rpartition('.')
    return ending.lower() if stem and not stem.startswith('.') else ''
