"""Adapt every checkpoint that the Runner loads to the model, or refuse it with the reason.

MMEngine's ``load_from`` loads the keys that happen to match, logs the rest and continues, also when
no key matched.
"""

import logging

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmtimesformer.checkpoints import CheckpointError, adapt_checkpoint, config_differences
from mmtimesformer.checkpoints.key_maps import FORMATS
from mmtimesformer.checkpoints.load_report import LoadReport, some
from mmtimesformer.engine.checkpointing.safe_loading import Checkpoint
from mmtimesformer.non_finite import check_weights
from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class AdaptCheckpointHook(Hook):
    """Adapt names, sizes and attention type of a loaded checkpoint to a model of ours.

    For ``load_from``, ``resume`` and the checkpoint of a test. It warns where the weights were
    trained with another preprocessing. Models without a backbone of ours are left as they are.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Change the checkpoint in place; MMEngine loads it next.

        Raises:
            CheckpointError: A key is missing or unknown, or a shape differs; in a test also where a
                weight, such as that of another number of classes, would stay random.
            NonFiniteError: A weight is NaN or infinite.
            ValueError: A training is to be resumed from a checkpoint that is not its own.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        mismatch = _shape_mismatch(checkpoint, model)
        because = f' ({mismatch})' if mismatch else ''
        load_report = adapt_checkpoint(checkpoint, model)
        if load_report is None:
            weights = checkpoint.get('state_dict')
            if isinstance(weights, dict):
                check_weights(weights, [name for name, _ in model.named_parameters()])
            return
        warnings = config_differences(checkpoint, runner.cfg)  # after metadata was added
        if runner._resume and not ('optimizer' in checkpoint and _is_unchanged(load_report)):
            raise ValueError(
                f'a training cannot resume from a checkpoint that is not its own{because}: the '
                'state of its optimizer is not there, or is of other weights in another order; '
                'leave --resume out, and start from these weights: --cfg-options '
                'load_from=CHECKPOINT'
            )
        if not _is_unchanged(load_report):
            runner.logger.info(f'Load report of the checkpoint\n{load_report.table()}')
        initialized = load_report.keys('newly initialized')
        if initialized and _is_test(runner):
            raise CheckpointError(
                f'{some(initialized)} did not come from the checkpoint{because}, so the scores of '
                'a test would be of random weights; give the checkpoint of a trained model, or set '
                'the config to its shapes'
            )
        if initialized:
            warnings.append(f'{some(initialized)} did not come from it: newly initialized')
        for warning in [*load_report.warnings, *warnings]:
            print_log(f'Checkpoint: {warning}', logger=runner.logger, level=logging.WARNING)


def _is_test(runner: Runner) -> bool:
    """Whether a Runner tests or validates, and does not train."""
    loops = runner._train_loop, runner._val_loop, runner._test_loop  # configs until they are built
    trains, *tests = [isinstance(loop, BaseLoop) for loop in loops]
    return any(tests) and not trains


def _is_unchanged(load_report: LoadReport) -> bool:
    """Whether it is a checkpoint of ours, of which every weight kept its place."""
    ours = load_report.source == FORMATS['mmtimesformer'].title
    return ours and all(entry.action == 'renamed' for entry in load_report.entries)


def _shape_mismatch(checkpoint: Checkpoint, model: nn.Module) -> str | None:
    """Describe a weight of another shape than the model's, as after a change of ``num_classes``."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = checkpoint.get('state_dict')
    for name, tensor in saved.items() if isinstance(saved, dict) else ():
        shape = tuple(getattr(tensor, 'shape', ()))
        if shapes.get(name, shape) != shape:
            key = ', model.cls_head.num_classes' if 'fc_cls' in name else ''
            return f'{name} is {shape} there and {shapes[name]} in the model{key}'
    return None
