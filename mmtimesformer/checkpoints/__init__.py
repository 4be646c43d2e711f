"""Read checkpoints of other implementations, convert them, and load them into our models.

Read in this order: ``key_maps`` (parameter names of each implementation), ``convert`` (detect,
rename, adapt, write names), ``load_report`` (what happened to each key), ``metadata`` (what the
weights do not show), ``readers`` and ``torch_checkpoints`` (files, of which nothing is executed),
``dcp`` (sharded checkpoints), ``download`` (web addresses), ``load`` and ``save``.

Needs torch, NumPy and einops; the models are never imported here.
"""

from mmtimesformer.checkpoints.convert import Weights, convert_state_dict
from mmtimesformer.checkpoints.load import (
    adapt_checkpoint,
    config_differences,
    load_checkpoint,
    read_checkpoint,
    read_model_checkpoint,
)
from mmtimesformer.checkpoints.load_report import CheckpointError, LoadReport
from mmtimesformer.checkpoints.readers import read_file
from mmtimesformer.checkpoints.save import save_checkpoint
from mmtimesformer.checkpoints.torch_checkpoints import load_torch

__all__ = [
    'LoadReport',
    'CheckpointError',
    'Weights',
    'config_differences',
    'convert_state_dict',
    'adapt_checkpoint',
    'load_checkpoint',
    'load_torch',
    'read_checkpoint',
    'read_file',
    'read_model_checkpoint',
    'save_checkpoint',
]
