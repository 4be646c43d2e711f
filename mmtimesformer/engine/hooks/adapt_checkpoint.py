"""Adapt every checkpoint that the Runner loads to the model, or refuse it with the reason."""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import BaseLoop
from torch import nn

from mmtimesformer.checkpoints import CheckpointError, adapt_checkpoint, config_differences
from mmtimesformer.checkpoints.key_maps import FORMATS
from mmtimesformer.checkpoints.load_report import LoadReport, some
from mmtimesformer.non_finite import check_weights
from mmtimesformer.registry import HOOKS


@HOOKS.register_module()
class AdaptCheckpointHook(Hook):
    """Let every checkpoint that the Runner loads fit the model of ours, or refuse it in words.

    For ``load_from``, ``resume`` and the checkpoint of a test. Foreign names, sizes and attention
    types are brought to the model's; a preprocessing that differs from the one the weights were
    trained with is said. A model without a backbone of ours is left alone.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Change the checkpoint in place; MMEngine loads it next.

        Raises:
            CheckpointError: A key is missing or unknown, or a shape differs; in a test also where a
                weight, such as that of another number of classes, would stay random.
            NonFiniteError: A weight is NaN or infinite.
            ValueError: A training is to be resumed from anything but its own checkpoint.
        """
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        different = _other_shape(checkpoint, model)
        load_report = adapt_checkpoint(checkpoint, model)
        if load_report is None:
            weights = checkpoint.get('state_dict')
            if isinstance(weights, dict):
                check_weights(weights, [name for name, _ in model.named_parameters()])
            return
        said = config_differences(checkpoint, runner.cfg)  # the first call adds what it found
        is_training = 'optimizer' in checkpoint and _is_same(load_report)
        if getattr(runner, '_resume', False) and not is_training:
            raise ValueError(
                'a training cannot go on from a checkpoint that is not its own'
                + (f' ({different})' if different else '')
                + ': the state of its '
                'optimiser is not there, or is of other weights in another order; leave --resume '
                'out, and start from these weights: --cfg-options load_from=CHECKPOINT'
            )
        if not _is_same(load_report):
            runner.logger.info(f'What became of the checkpoint\n{load_report.table()}')
        fresh = load_report.keys('fresh')
        if fresh and _is_test(runner):
            raise CheckpointError(
                f'{some(fresh)} did not come from the checkpoint'
                + (f' ({different})' if different else '')
                + ', so the scores of a test would be of random weights; give the checkpoint of a '
                'trained model, or set the config to its shapes'
            )
        if fresh:
            said.append(f'{some(fresh)} did not come from it and starts fresh')
        for warning in [*load_report.warnings, *said]:
            print_log(f'Checkpoint: {warning}', logger=runner.logger, level=logging.WARNING)


def _is_test(runner: Any) -> bool:
    """Whether a Runner tests or validates, and does not train."""
    loops = [getattr(runner, f'_{stage}_loop', None) for stage in ('train', 'val', 'test')]
    trains, *tests = [isinstance(loop, BaseLoop) for loop in loops]
    return any(tests) and not trains


def _is_same(load_report: LoadReport) -> bool:
    """Whether it is a checkpoint of ours, of which every weight went to its own place."""
    ours = load_report.source == FORMATS['mmtimesformer'].title
    return ours and all(entry.action == 'renamed' for entry in load_report.entries)


def _other_shape(checkpoint: dict[str, Any], model: nn.Module) -> str | None:
    """Say which weight has another shape in a checkpoint, as after a change of ``num_classes``."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    saved = checkpoint.get('state_dict')
    for name, tensor in saved.items() if isinstance(saved, dict) else ():
        shape = tuple(getattr(tensor, 'shape', ()))
        if shapes.get(name, shape) != shape:
            key = ', model.cls_head.num_classes' if 'fc_cls' in name else ''
            return f'{name} is {shape} there and {shapes[name]} in the model{key}'
    return None
