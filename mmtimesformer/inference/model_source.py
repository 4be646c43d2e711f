"""Find the config and the checkpoint of a model by what the user gave.

=====================================  ============================================================
``model.pth``                          a checkpoint that holds its config or preprocessing
``config.py model.pth``                a config and its checkpoint, in any order
``timesformer_divST_8xb8-…``           a shipped config's name: its published weights, downloaded
``folder``                             saved by transformers, or a sharded checkpoint
``hf://owner/name@revision``           a repository of the Hugging Face Hub
``owner/name``, ``owner/name@…``       the same
=====================================  ============================================================

An existing local path wins, then a shipped name, then ``owner/name``. With a checkpoint, a folder
without weights does not win over a shipped name.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmtimesformer.checkpoints.readers import FOLDER_FILES
from mmtimesformer.cli import near_name
from mmtimesformer.config.command_line import CHECKPOINTS
from mmtimesformer.config.find import ENDINGS, find_config, shipped_configs
from mmtimesformer.config.model_zoo import published_weights
from mmtimesformer.terminal import echo

PathLike = str | os.PathLike[str]
INDEX = '.index.json'  # of the parts of a checkpoint of transformers
REPOSITORY = re.compile(r'([\w.-]+)/[\w.-]+(@[\w./-]+)?')


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from.

    Attributes:
        config: A file, a shipped config's name or a ``Config``; None if the checkpoint is enough.
        checkpoint: A file, a folder or an address.
    """

    config: str | Config | None
    checkpoint: str


def model_source(
    config: PathLike | Config | None = None, checkpoint: PathLike | None = None
) -> ModelSource:
    """Return the config and the checkpoint of a model; either may be given in place of the other.

    Raises:
        ValueError: A config is given without weights, or two configs, or two checkpoints.
        FileNotFoundError: What was given is neither a path nor a name.
    """
    given = [
        one if isinstance(one, Config) else str(one)
        for one in (config, checkpoint)
        if one is not None
    ]
    if not given:
        raise ValueError(
            'a classifier needs weights; give checkpoint, or the name of a shipped config'
        )
    if len(given) == 1:
        return _of_one(given[0])
    first, second = given
    first_is, second_is = _is_config_of_two(first), _is_config_of_two(second)
    if first_is and second_is:
        raise ValueError(
            f'{_shown(first)} and {_shown(second)} are both configs; give CONFIG and CHECKPOINT'
        )
    if not first_is and not second_is and _is_checkpoint(first) and _is_checkpoint(second):
        raise ValueError(
            f'{first} and {second} are both checkpoints; give CONFIG and CHECKPOINT, or one of them'
        )
    if second_is or (_is_checkpoint(first) and not first_is):
        first, second = second, first
    return ModelSource(first, _address(str(second)))


def _of_one(given: str | Config) -> ModelSource:
    """Return the source of a model of which one thing is known."""
    if not _is_config(given):
        checkpoint = _address(str(given))
        _require(checkpoint)
        return ModelSource(None, checkpoint)
    if isinstance(given, str) and not Path(given).expanduser().is_file():
        return _published(given)
    name = _shown(given)
    shipped = shipped_configs().get(Path(name).stem)
    hint = ''
    if shipped and shipped.resolve() == Path(name).resolve() and published_weights(shipped.stem):
        hint = f'; or give its name alone, {shipped.stem}, for its published weights'
    raise ValueError(
        f'{name} is a config, and a model needs weights; add a checkpoint: {name} CHECKPOINT{hint}'
    )


def _published(name: str) -> ModelSource:
    """Return a shipped config with its published weights; print where they are from."""
    find_config(name)
    config = name.removesuffix('.py')
    published = published_weights(config)
    if published is None:
        raise ValueError(
            f'{name} is a config, and nobody publishes weights for it; add a checkpoint: '
            f'{name} CHECKPOINT'
        )
    echo(
        f'weights of {config}: {published.address} (from {published.origin}, license '
        f'{published.license})',
        file=sys.stderr,
    )
    return ModelSource(config, published.address)


def _is_config(given: str | Config) -> bool:
    """Whether this is a config: a file by its ending, or a shipped config by its name."""
    if isinstance(given, Config):
        return True
    path = Path(given).expanduser()
    if path.exists() or '://' in given:
        return path.is_file() and path.suffix in ENDINGS and not given.endswith(INDEX)
    return path.suffix == '.py' or given in shipped_configs()


def _is_config_of_two(given: str | Config) -> bool:
    """Whether this is the config, where the checkpoint is given too.

    A folder without weights, such as that of a training in work_dirs, does not hide the shipped
    config of its name then. Alone it does: published weights are not those of the training.
    """
    if _is_config(given):
        return True
    path = Path(str(given)).expanduser()
    weights = (path / name for name in (*FOLDER_FILES, '.metadata'))
    return given in shipped_configs() and path.is_dir() and not any(x.exists() for x in weights)


def _is_checkpoint(given: str | Config) -> bool:
    """Whether this is a checkpoint: a path by its ending, a folder, or an address."""
    if isinstance(given, Config) or _is_config(given):
        return False
    return (
        given.endswith(CHECKPOINTS) or Path(given).expanduser().exists() or '://' in _address(given)
    )


def _address(given: str) -> str:
    """Return ``hf://owner/name`` for ``owner/name``; anything else as it is."""
    match = REPOSITORY.fullmatch(given)
    if match is None or given.endswith(CHECKPOINTS) or Path(given).exists():
        return given
    owner = match[1]
    return given if owner in ('.', '..') or Path(owner).exists() else f'hf://{given}'


def _require(checkpoint: str) -> None:
    """Raise an error if this is neither a path nor an address."""
    path = Path(checkpoint).expanduser()
    if '://' in checkpoint or path.exists():
        return
    if REPOSITORY.fullmatch(checkpoint) and not checkpoint.endswith(CHECKPOINTS):
        rule = f'; correct the path, or write hf://{checkpoint} for the Hugging Face Hub'
    elif checkpoint.endswith(CHECKPOINTS) or len(path.parts) > 1:
        rule = '; correct the path'
    else:
        rule = (
            ', is no name of a shipped config, and no owner/name of the Hugging Face Hub'
            + near_name(checkpoint, shipped_configs(), 0.3, 3)
        )
    raise FileNotFoundError(
        f'checkpoint {checkpoint} does not exist (looked in {path.absolute().parent}){rule}'
    )


def _shown(given: str | Config) -> str:
    return str(given.filename or 'the config') if isinstance(given, Config) else given
