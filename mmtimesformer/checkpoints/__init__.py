"""Everybody's files: weights of any system in, four formats out, never a silent load.

Read in this order: ``formats`` (who calls what how), ``convert`` (detect, rename, seed, resize),
``load_report`` (what became of each key), ``files`` and ``pickles`` (reading without trust, writing
without loss), ``shares`` (what several processes wrote), ``sources`` (paths and addresses),
``facts`` (what the weights do not say), ``load`` and ``save`` (into models and out of them).

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
