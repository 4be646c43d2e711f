"""Find a config by its path, or a shipped one by its name, and read it."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtimesformer.cli import near_name

PACKAGE = Path(__file__).resolve().parents[1]
ENDINGS = ('.py', '.json', '.yml', '.yaml')
FOLDERS = (PACKAGE.parent / 'configs', PACKAGE / '.mim' / 'configs')  # a checkout; a wheel


def shipped_configs() -> dict[str, Path]:
    """Return the path of each config that comes with the package, by name without ``.py``."""
    return {
        path.stem: path
        for folder in FOLDERS
        for path in sorted(folder.rglob('*.py'))
        if '_base_' not in path.parts
    }


def find_config(name_or_path: str) -> Path:
    """Return the path of a config: of a file, or of a shipped one by name, with or without ``.py``.

    Raises:
        ValueError: The file is no config.
        FileNotFoundError: There is no such file or name; the message lists the nearest names.
    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        if path.suffix not in ENDINGS:
            raise ValueError(
                f'{name_or_path} is no config; name a file that ends in {", ".join(ENDINGS)}'
            )
        return path
    shipped = shipped_configs()
    name = path.name.removesuffix('.py')
    if name in shipped and len(path.parts) == 1:
        return shipped[name]
    raise FileNotFoundError(
        f'config {name_or_path} is neither a file (looked in {path.absolute().parent}) nor the '
        'name of a shipped config' + near_name(name, shipped, 0.3, 3)
    )


def read_config(name_or_path: str, options: dict[str, Any] | None = None) -> Config:
    """Find and read a config, and merge options into it: values by dotted key.

    Raises:
        ValueError: The file cannot be read, or an option does not fit the config.
        FileNotFoundError: There is no such file or name.
    """
    path = find_config(name_or_path)
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise ValueError(f'config {path} cannot be read: {error}') from error
    if options:
        from mmtimesformer.config.validate import check_options

        check_options(cfg, options)
    for key, value in (options or {}).items():  # one by one, so that an error names the option
        try:
            cfg.merge_from_dict({key: value})
        except Exception as error:  # noqa: PERF203 (options are few)
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            reason = str(text).partition(' of list [')[0].partition('. You may set')[0]
            if isinstance(error, TypeError) and 'list indices' in reason:
                reason = 'an item of a list is named by its index, from 0'
            raise ValueError(
                f'--cfg-options {key}={value}: {reason}; correct the name or the value'
            ) from error
    return cfg


def read_base(name: str) -> Config:
    """Read a shipped part of configs, such as ``'models/timesformer_tiny'``.

    Raises:
        FileNotFoundError: There is no such part.
    """
    for folder in FOLDERS:
        path = folder / '_base_' / f'{name}.py'
        if path.is_file():
            return Config.fromfile(path)
    raise FileNotFoundError(f'{name} is not among the shipped configs; install them again')
