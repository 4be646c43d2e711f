"""Change the model of a test after its weights are loaded, for instance to run it faster."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

Prepare = Callable[[Any, torch.device], None]


class PrepareModelHook(Hook):
    """Call a function with the recognizer and its device before a test.

    Args:
        prepare: Changes the recognizer, in place.
    """

    priority = 'LOWEST'  # after the weights were checked

    def __init__(self, prepare: Prepare) -> None:
        self.prepare = prepare

    def before_test(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.prepare(model.eval(), torch.device(get_device()))
