"""Resume with changed settings: log what the checkpoint overrides, and let given options win.

MMEngine takes the settings of optimizer, parameter schedulers and loss scaler from the checkpoint:
a changed learning rate in the config has no effect. Here each difference is logged, with both
values. The checkpoint's takes effect, unless ``--cfg-options`` gives the option with ``--resume``.
Then schedulers are replayed, and learning rates become what they would be at this step had the
training begun with the new settings. An unchanged run resumes bit for bit.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import Runner

from mmtimesformer.checkpoints.metadata import read_literals
from mmtimesformer.compat.upstream import require_attributes

require_attributes(_ParamScheduler, '_global_step', '_last_value', used_by=__name__)

Group = dict[str, Any]  # settings by name

OPTIMIZER = 'optim_wrapper.optimizer'
SCHEDULER = 'param_scheduler'
POSITION = {
    'last_step', '_global_step', '_last_value', 'base_values', 'verbose', 'optimizer',
    'best', 'num_bad_epochs', 'cooldown_counter',  # of ReduceOnPlateau
}  # fmt: skip
# Settings that differ between versions of torch and change no result.
IMPLEMENTATION = {
    'foreach', 'fused', 'capturable', 'differentiable', 'maximize', 'decoupled_weight_decay',
    'amsgrad',
}  # fmt: skip


@dataclass
class Moment:
    """Where a training is that resumes: epochs and steps (batches) that are done."""

    epochs: int
    steps: int
    steps_of_now: int  # had all epochs been as long as they are now
    by_epochs: list[bool]  # for each scheduler, whether its config counts epochs in steps

    def count(self, number: int, by_epoch: bool) -> int:
        """Return how often a scheduler of the config would have stepped by now."""
        if by_epoch:
            return self.epochs
        return self.steps_of_now if self.is_converted(number) else self.steps

    def is_converted(self, number: int) -> bool:
        """Whether a scheduler of the config counts epochs, in steps."""
        return number < len(self.by_epochs) and self.by_epochs[number]


class Settings:
    """Settings of a run's one optimizer, schedulers and loss scaler, as they are at one moment."""

    def __init__(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        self.groups = [_without_params(group) for group in wrapper.param_groups]
        self.schedulers = [
            copy.deepcopy(scheduler.state_dict()) for scheduler in runner.param_schedulers or ()
        ]
        self.scaler = (
            dict(wrapper.loss_scaler.state_dict()) if hasattr(wrapper, 'loss_scaler') else {}
        )


def can_be_compared(runner: Runner) -> bool:
    """Whether a Runner has one optimizer and a list of schedulers, as nearly all have."""
    return isinstance(runner.optim_wrapper, OptimWrapper) and isinstance(
        runner.param_schedulers, list | None
    )


def check_optimizer(runner: Runner, checkpoint: Group) -> None:
    """Refuse a checkpoint of another optimizer, or of other groups of parameters.

    Raises:
        ValueError: It does not fit.
    """
    saved = (checkpoint.get('optimizer') or {}).get('param_groups')
    if saved is None or not isinstance(runner.optim_wrapper, OptimWrapper):
        return
    groups = runner.optim_wrapper.optimizer.param_groups
    sizes = [[len(group['params']) for group in some] for some in (saved, groups)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f'the checkpoint has {sum(sizes[0])} parameters in {len(saved)} groups of its '
            f'optimizer, and the config makes {sum(sizes[1])} in {len(groups)}; set '
            'optim_wrapper.paramwise_cfg, optim_wrapper.constructor and model.backbone.'
            'frozen_stages as they were, or start a new training by load_from=CHECKPOINT'
        )
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, dict) else None
    then = _optimizer_type(read_literals(text) if isinstance(text, str) else {})
    now = _optimizer_type(runner.cfg)
    if then and now and then != now:  # Adam and AdamW have the same settings
        raise ValueError(
            f'the checkpoint is of a training with {then}, and the config has {OPTIMIZER}.type='
            f'{now!r}; set {OPTIMIZER}.type as it was, or start a new training by '
            'load_from=CHECKPOINT'
        )
    missing = set(runner.optim_wrapper.optimizer.defaults) - set(saved[0]) - IMPLEMENTATION
    if missing:
        kind = type(runner.optim_wrapper.optimizer).__name__
        raise ValueError(
            f"the checkpoint's optimizer has no {', '.join(sorted(missing))}, so it is no {kind}; "
            f'set {OPTIMIZER}.type as it was, or start a new training by load_from=CHECKPOINT'
        )


def _optimizer_type(cfg: Any) -> str | None:
    """Return the name of a config's optimizer without its scope, or ``None``."""
    part: Any = cfg
    for key in (*OPTIMIZER.split('.'), 'type'):
        part = part.get(key) if isinstance(part, dict | Config) else None
    name = getattr(part, '__name__', part)
    return name.rpartition('.')[2] if isinstance(name, str) else None


def reconcile(
    runner: Runner,
    configured: Settings,
    of_checkpoint: list[Group] | None,
    given: Sequence[str],
    moment: Moment,
    log: Callable[[str], object],
) -> None:
    """Log what a checkpoint overrode, and put back what was given on the command line.

    Args:
        runner: The Runner, which has just resumed.
        configured: Its settings before that.
        of_checkpoint: The states of schedulers in the checkpoint, if it has any.
        given: Keys of ``--cfg-options``.
        moment: Where the training is.
        log: Receives a sentence for each difference.
    """
    resumed = Settings(runner)
    lr_is_given = any(_is_given(key, given) for key in (OPTIMIZER + '.lr', 'auto_scale_lr'))
    changed = False
    for key, new, old in _group_differences(configured.groups, resumed.groups):
        name = f'{OPTIMIZER}.{key}'
        wins = lr_is_given if key == 'lr' else _is_given(name, given)
        wins = wins or _is_given('optim_wrapper.paramwise_cfg', given)
        log(_sentence(name, new, old, wins))
        if wins:
            changed = True
            for group, own in zip(
                runner.optim_wrapper.param_groups, configured.groups, strict=True
            ):
                momenta = ('momentum', 'initial_momentum') if key == 'betas' else ()
                for part in (key, f'initial_{key}', *momenta):
                    if part in own:
                        group[part] = copy.deepcopy(own[part])
    if of_checkpoint is not None:
        settings, moved = _scheduler_settings(
            configured.schedulers, of_checkpoint, given, moment, log
        )
        if changed or moved:
            names = {state['param_name'] for state in of_checkpoint}
            _replay(runner, settings, resumed, names)
    if configured.scaler and resumed.scaler:
        _reconcile_scaler(runner, configured.scaler, resumed.scaler, given, log)


def _group_differences(
    configured: list[Group], resumed: list[Group]
) -> Iterator[tuple[str, str, str]]:
    """Yield each setting that differs in a group, with both values as text."""
    keys = dict.fromkeys(key for group in configured for key in group)
    for key in keys:
        if key.startswith('initial_') or (key == 'momentum' and 'betas' in keys):
            continue
        pairs = [
            (_value(new, key), _value(old, key))
            for new, old in zip(configured, resumed, strict=False)
            if key in new and key in old
        ]
        if any(new != old for new, old in pairs):
            yield key, _range([new for new, _ in pairs]), _range([old for _, old in pairs])


def _value(group: Group, key: str) -> Any:
    """Return a setting of a group without the changes of schedulers."""
    value: Any = group.get(f'initial_{key}', group[key])
    if key == 'betas' and 'initial_momentum' in group:  # a scheduler changes the first of them
        value = (group['initial_momentum'], *value[1:])
    return list(value) if isinstance(value, tuple) else value


def _range(values: list[Any]) -> str:
    different = [value for i, value in enumerate(values) if value not in values[:i]]
    if len(different) == 1:
        return _word(different[0])
    if all(isinstance(value, int | float) for value in different):
        return f'{_word(min(different))} to {_word(max(different))}'
    return ', '.join(map(_word, different))


def _word(value: object) -> str:
    return f'{value:g}' if isinstance(value, float) else str(value)


def _sentence(key: str, new: str, old: str, wins: bool) -> str:
    return f'{key}: {new} in the config, {old} in the checkpoint. ' + (
        "The config's takes effect."
        if wins
        else "The checkpoint's takes effect; to change it, give it by --cfg-options together with "
        '--resume.'
    )


def _is_given(key: str, given: Sequence[str]) -> bool:
    """Whether an option is a key, a parent of it, or a child of it."""
    return any(
        key == option or key.startswith(f'{option}.') or option.startswith(f'{key}.')
        for option in given
    )


def _scheduler_settings(
    configured: list[Group],
    of_checkpoint: list[Group],
    given: Sequence[str],
    moment: Moment,
    log: Callable[[str], object],
) -> tuple[list[tuple[Group, int]], bool]:
    """Return the settings and number of steps of each scheduler, and whether any changed."""
    counts = [moment.count(i, state['by_epoch']) for i, state in enumerate(configured)]
    kinds = [[state.keys() for state in states] for states in (configured, of_checkpoint)]
    if kinds[0] != kinds[1]:
        log(
            f'{SCHEDULER}: {len(configured)} schedulers in the config, {len(of_checkpoint)} in the '
            "checkpoint, and not of the same types. The config's take effect."
        )
        return list(zip(configured, counts, strict=True)), True
    settings, moved = [], False
    for i, (new, old) in enumerate(zip(configured, of_checkpoint, strict=True)):
        done = int(old['_global_step'])
        in_epochs = moment.is_converted(i) and done != counts[i]  # of another length
        wins = in_epochs or _is_given(f'{SCHEDULER}.{i}', given)
        for key in new:
            if key not in POSITION and new[key] != old[key]:
                words = _word(_plain(new[key])), _word(_plain(old[key]))
                log(_sentence(f'{SCHEDULER}.{i}.{key}', *words, wins))
                moved = moved or wins
        settings.append((new if wins else old, counts[i] if in_epochs else done))
        moved = moved or in_epochs
    return settings, moved


def _plain(value: object) -> object:
    """Return milestones, a Counter, as a list."""
    return sorted(value.elements()) if isinstance(value, Counter) else value


def _replay(
    runner: Runner,
    settings: list[tuple[Group, int]],
    resumed: Settings,
    scheduled: set[str],
) -> None:
    """Set scheduled values as if the training had begun with these settings and numbers of steps.

    ``scheduled`` are the values that the checkpoint's schedulers changed: ``{'lr'}``.
    """
    schedulers = runner.param_schedulers or []
    groups = runner.optim_wrapper.param_groups
    for group in groups:  # if no scheduler is left
        for name in scheduled:
            group[name] = group.get(f'initial_{name}', group[name])
    if any('ReduceOnPlateau' in type(scheduler).__name__ for scheduler in schedulers):
        # Its steps depended on scores; the values keep their ratio to the initial ones.
        for group, old in zip(groups, resumed.groups, strict=True):
            if old.get('initial_lr'):
                group['lr'] = old['lr'] * group['initial_lr'] / old['initial_lr']
        for scheduler, (state, _) in zip(schedulers, settings, strict=True):
            scheduler.__dict__.update({k: v for k, v in state.items() if k not in POSITION})
            name = scheduler.param_name
            scheduler.base_values = [group[f'initial_{name}'] for group in groups]
            scheduler._last_value = [group[name] for group in groups]
        return
    stage = _OptimizerStub([dict(_without_params(group)) for group in groups])
    names = {state['param_name'] for state, _ in settings}
    for group in stage.param_groups:
        for name in names:
            group[name] = group.setdefault(f'initial_{name}', group.get(name))
            if name == 'momentum' and 'betas' in group:
                group['betas'] = (group[name], group['betas'][1])
    replayed = []
    for scheduler, (state, _) in zip(schedulers, settings, strict=True):
        kind: Any = type(scheduler)
        player = kind.__new__(kind)
        player.__dict__.update(copy.deepcopy(state))
        player.optimizer, player.verbose = stage, False
        player.last_step = player._global_step = -1
        player.base_values = [g[f'initial_{player.param_name}'] for g in stage.param_groups]
        player.step()  # as the constructor does
        replayed.append(player)
    _step_together(replayed, [count for _, count in settings])
    for scheduler, player in zip(schedulers, replayed, strict=True):
        kept = {'optimizer': scheduler.optimizer, 'verbose': scheduler.verbose}
        scheduler.__dict__.clear()  # attributes of a scheduler of another type
        scheduler.__dict__.update({**player.__dict__, **kept})
    for group, played in zip(groups, stage.param_groups, strict=True):
        for name in names:
            group[name], group[f'initial_{name}'] = played[name], played[f'initial_{name}']
            if name == 'momentum' and 'betas' in group:
                group['betas'] = played['betas']


def _step_together(schedulers: list[_ParamScheduler], counts: list[int]) -> None:
    """Step each scheduler so many times, evenly spread; those by iterations first."""
    longest = max(counts, default=0)
    order = sorted(range(len(schedulers)), key=lambda i: schedulers[i].by_epoch)
    for moment in range(1, longest + 1):
        for i in order:
            if moment * counts[i] // longest > (moment - 1) * counts[i] // longest:
                schedulers[i].step()


class _OptimizerStub:
    """An optimizer without weights, on which schedulers are replayed."""

    def __init__(self, param_groups: list[Group]) -> None:
        self.param_groups = param_groups
        self._global_step = 1

    def step(self) -> None:
        raise AssertionError('it has no weights')

    step._with_counter = True  # type: ignore[attr-defined]  # MMEngine's schedulers check it


def _reconcile_scaler(
    runner: Runner,
    configured: Group,
    resumed: Group,
    given: Sequence[str],
    log: Callable[[str], object],
) -> None:
    key = 'optim_wrapper.loss_scale'
    wins = _is_given(key, given)
    for name in ('growth_factor', 'backoff_factor', 'growth_interval'):
        if name in configured and configured[name] != resumed.get(name):
            new, old = _word(configured[name]), _word(resumed.get(name))
            log(_sentence(f'{key}.{name}', new, old, wins))
    if wins:
        runner.optim_wrapper.loss_scaler.load_state_dict(configured)


def _without_params(group: Group) -> Group:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != 'params'}
