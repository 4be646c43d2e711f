"""Load checkpoints in MMEngine by our reader, so that no file can run code.

MMEngine 0.11 opens local files with ``weights_only=False``, which executes what they contain; 0.10
cannot resume under torch 2.6. Both load every checkpoint (``load_from``, ``resume``, ``init_cfg``,
the argument of a test) by ``CheckpointLoader``, where the functions below replace its own, in
MMAction2's own tools too.

``torchvision://``, ``modelzoo://`` and ``mmcls://`` stay MMEngine's: they use torch's default of
``weights_only``, which is true since 2.6.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from mmengine import dist
from mmengine.fileio import get_local_path
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_deprecated_model_names, get_external_models

from mmtimesformer.checkpoints import read_model_checkpoint
from mmtimesformer.checkpoints.download import fetch
from mmtimesformer.checkpoints.torch_checkpoints import ScalarHistory

Checkpoint = dict[str, Any]  # what MMEngine's Runner saves and loads
MapLocation = str | torch.device | Callable[..., Any] | None


def register_checkpoint_readers() -> None:
    """Replace MMEngine's readers by ours; calling it again changes nothing."""
    for prefixes, loader in (
        ('', load_from_local),
        (('http://', 'https://', 'hf://', 'timm://'), load_from_web),
        ((r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_store),
        (('open-mmlab://', 'openmmlab://'), load_from_openmmlab),
        ('pavi://', load_from_pavi),
    ):
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


def load_from_local(filename: str, map_location: MapLocation = None) -> Checkpoint:
    """Read a checkpoint file of any format, or a folder in Hugging Face's layout, for the Runner.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, is damaged, or holds a program instead of data.
    """
    checkpoint = read_model_checkpoint(filename, map_location)
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f'checkpoint {filename} holds a {type(checkpoint).__name__}, not a dict of weights; '
            "save it as torch.save({'state_dict': model.state_dict()}, path)"
        )
    return for_runner(checkpoint)


def load_from_web(filename: str, map_location: MapLocation = None) -> Checkpoint:
    """Download a checkpoint once per machine and read it."""
    try:
        if int(os.environ.get('LOCAL_RANK', 0)) == 0:
            fetch(filename)
    finally:
        dist.barrier()  # also after a failure: the other processes wait
    return load_from_local(filename, map_location)


def load_from_store(filename: str, map_location: MapLocation = None) -> Checkpoint:
    """Read a checkpoint from an object store, through MMEngine's backend for it."""
    with get_local_path(filename, backend_args={'backend': 'petrel'}) as path:
        return load_from_local(str(path), map_location)


def load_from_openmmlab(filename: str, map_location: MapLocation = None) -> Checkpoint:
    """Read a checkpoint that OpenMMLab lists by name."""
    name = filename.partition('://')[2]
    name = get_deprecated_model_names().get(name, name)
    urls = get_external_models()
    if name not in urls:
        raise ValueError(f'checkpoint {filename} is not in the list of OpenMMLab; check the name')
    return CheckpointLoader.load_checkpoint(urls[name], map_location)


def load_from_pavi(filename: str, map_location: MapLocation = None) -> Checkpoint:
    """Refuse a scheme whose client is not public."""
    raise ValueError(f'checkpoint {filename}: pavi:// is not supported; give a downloaded file')


def for_runner(checkpoint: Checkpoint) -> Checkpoint:
    """Restore MMEngine's type of loss curves, and drop the text that MMEngine would execute."""
    hub = checkpoint.get('message_hub')
    curves = hub.get('log_scalars') if isinstance(hub, dict) else None
    if isinstance(curves, dict):
        for name, curve in curves.items():
            if isinstance(curve, ScalarHistory):
                values = curve.log_history, curve.count_history, curve.max_length
                curves[name] = HistoryBuffer(*values)
    meta = checkpoint.get('meta')
    if isinstance(meta, dict):
        meta.pop('config', None)  # Runner.resume runs it as a config file; ours are under `cfg`
    return checkpoint
