"""Finding a config by its path, or one of ours by its name."""

from pathlib import Path

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
    """Return the path of a config.

    Args:
        name_or_path: A file, or a name such as
            ``timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb``, with or without ``.py``.

    Raises:
        ValueError: The file is of another kind.
        FileNotFoundError: It is neither; the message lists the nearest names.
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
