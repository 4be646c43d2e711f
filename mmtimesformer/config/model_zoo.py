"""Names of the shipped configs, and the addresses of the weights that others publish for them.

Both come from the metafiles that ``model-index.yml`` lists: of the checkout, or of the wheel.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.fileio import load

from mmtimesformer.config.find import FOLDERS, shipped_configs


@dataclass(frozen=True)
class PublishedWeights:
    """Weights for a config: where they are, who publishes them, and under which license."""

    address: str
    origin: str
    license: str


def config_names() -> list[str]:
    """Return the names of all shipped configs, without ``.py``, sorted."""
    return sorted(shipped_configs())


def weights_of(config_name: str) -> str | None:
    """Return the address of the weights for a shipped config; None where nobody publishes them.

    Args:
        config_name: The name, with or without ``.py``.
    """
    published = published_weights(config_name)
    return published.address if published else None


def published_weights(config_name: str) -> PublishedWeights | None:
    """Return the weights for a shipped config with origin and license; None where there are none.

    Args:
        config_name: The name, with or without ``.py``.
    """
    model = metafile_entries().get(config_name.removesuffix('.py'), {})
    if 'Weights' not in model:
        return None
    return PublishedWeights(model['Weights'], model['Weights Origin'], model['Weights License'])


def index_folder() -> Path:
    """Return the folder of ``model-index.yml``, ``configs/`` and ``tools/``.

    Raises:
        FileNotFoundError: The package was copied without them.
    """
    for folder in FOLDERS:
        if (folder.parent / 'model-index.yml').is_file():
            return folder.parent
    raise FileNotFoundError('model-index.yml is not with the package; install the package again')


@cache
def metafile_entries() -> dict[str, dict[str, Any]]:
    """Return the entries of the metafiles by the name of the config; do not change them."""
    folder = index_folder()
    return {
        model['Name']: model
        for path in load(folder / 'model-index.yml')['Import']
        for model in load(folder / path)['Models']
    }
