"""Probes: train a classifier on the frozen features of a checkpoint, in minutes.

Read in this order: ``probe`` (:func:`run_probe`, the whole job), ``lists`` (annotation files),
``frozen_features`` (the feature cache), ``fitting`` (linear, k-NN and attentive classifiers),
``folds`` (cross-validation), ``scoring``, ``saving`` (checkpoint, config and dump of the test).

Needs MMAction2, a video reader, and scikit-learn.
"""

from mmtimesformer.cli import require_mmaction

require_mmaction()

from mmtimesformer.probing.fitting import KINDS  # noqa: E402
from mmtimesformer.probing.probe import ProbeResult, run_probe  # noqa: E402

__all__ = ['KINDS', 'ProbeResult', 'run_probe']
