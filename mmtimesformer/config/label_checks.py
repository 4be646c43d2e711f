"""Check before a run that data set, head, loss, fusion of views and metrics agree on the labels.

A video has one label, or several (multi-label). For several, the data set has ``multi_class=True``
and gives a multi-hot row, the loss trains a sigmoid for each class, and a score is the mean of the
sigmoids of the views (``average_clips='sigmoid'``). A mixture of both kinds fails late and without
a key, or gives wrong scores: a softmax of logits that were trained as sigmoids.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mmengine import registry as roots

from mmtimesformer.cli import near_name

SIGMOID_LOSSES = {'BCELossWithLogits', 'BCEWithLogitsLoss', 'HVULoss', 'MultiLabelSoftMarginLoss'}
HARD_LABELS_FAIL = {'BCELossWithLogits', 'BCEWithLogitsLoss'}  # they need a row for each video
SOFTMAX_LOSS = 'CrossEntropyLoss'
HEAD, OUR_HEAD = 'TimeSformerHead', 'mmtimesformer.TimeSformerHead'
BY_MMACTION2 = ('score', 'prob', None)  # fusions that MMAction2's own head has
# Data sets of which it is known that without multi_class=True a video has one label.
DATASETS = {
    f'{scope}{name}'
    for scope in ('', 'mmaction.', 'mmtimesformer.')
    for name in ('VideoDataset', 'RawframeDataset', 'TarShardVideoDataset')
}
# Metrics of MMAction2's AccMetric, and the names of their values.
SINGLE_LABEL = {'top_k_accuracy': 'top', 'mean_class_accuracy': 'mean1'}
MULTI_LABEL = {name: name for name in ('mean_average_precision', 'mmit_mean_average_precision')}
MULTI, SINGLE = 'multi-label', 'single-label'


def check_labels(cfg: Any, stages: dict[str, list[tuple[str, Any]]]) -> list[str]:
    """Check that data sets, head, loss, fusion of views and metrics fit single or multiple labels.

    ``average_clips`` of a head with a sigmoid for each class is set to ``'sigmoid'`` if it is
    ``'prob'`` or missing. MMAction2's ``TimeSformerHead`` is replaced by ours for fusions that only
    ours has.

    Args:
        cfg: The config; ``model.cls_head`` may be changed.
        stages: For each of ``train``, ``val`` and ``test`` that will run, its data sets with their
            keys.

    Returns:
        What was changed, or is legal and unusual, one sentence each.

    Raises:
        ValueError: Components contradict each other, or an option of a metric would be ignored.
    """
    head = cfg.model.get('cls_head') or {}
    notes: list[str] = []
    for stage, datasets in stages.items():
        for key, dataset in datasets:
            if dataset.get('multi_class'):
                _check_num_classes(key, dataset, head.get('num_classes'))
        if stage == 'train' and _name(head) == HEAD:
            for key, dataset in datasets:
                _check_loss(key, kind_of(dataset), cfg.model)
    kinds = {stage: _one_kind(datasets) for stage, datasets in stages.items()}
    scored = {stage: kind for stage, kind in kinds.items() if stage != 'train'}
    if _name(head) == HEAD:
        notes += _check_fusion(head, MULTI in kinds.values(), bool(scored))
    for stage, kind in scored.items():
        fused = _name(head) != HEAD or head.get('average_clips') is not None
        _check_metrics(f'{stage}_evaluator', cfg.get(f'{stage}_evaluator'), kind, fused)
    if scored:
        _check_best(cfg, scored)
    return notes


def kind_of(dataset: Any) -> str | None:
    """Return ``'multi-label'``, ``'single-label'``, or ``None`` where that is not known."""
    if not isinstance(dataset, dict):
        return None
    if dataset.get('multi_class'):
        return MULTI
    return SINGLE if dataset.get('type') in DATASETS else None


def scores_are_sigmoids(head: Any, multi_label_data: bool = False) -> bool:
    """Whether a head has a sigmoid for each class, by its config.

    Args:
        head: ``model.cls_head``.
        multi_label_data: Whether the data set has ``multi_class=True``: it decides for a loss that
            is not known.
    """
    if not isinstance(head, dict):
        return False
    loss = head.get('loss_cls')
    names = {cls.__name__ for cls in _classes(loss)} | {_name(loss)}
    if head.get('multi_class') or names & SIGMOID_LOSSES or _uses_sigmoid(loss):
        return True
    return multi_label_data and not _has_softmax_loss(head)


def with_temperature(head: dict[str, Any], temperature: float) -> dict[str, Any]:
    """Return the config of a head whose logits are divided by a temperature.

    MMAction2's ``TimeSformerHead`` has none, and is replaced by ours.

    Raises:
        ValueError: The head is of another type, or it has another temperature already.
    """
    if head.get('temperature', temperature) != temperature:
        raise ValueError(
            f'model.cls_head.temperature={head["temperature"]} of the config differs from '
            f'{temperature:g} of the checkpoint; remove one of them'
        )
    kind = str(head.get('type'))
    if _name(head) != HEAD and not kind.startswith('mmtimesformer.'):
        raise ValueError(
            f'model.cls_head.type={kind} has no temperature; use {OUR_HEAD}, or test without '
            '--calibrated'
        )
    kind = OUR_HEAD if _name(head) == HEAD else kind
    return type(head)({**head, 'type': kind, 'temperature': temperature})


def to_build(head: dict[str, Any], multi_label: bool) -> dict[str, Any]:
    """Return the config of a head that has the fusion of views that the scores need.

    Args:
        head: ``model.cls_head``.
        multi_label: Whether each class was trained by itself; then views are fused by sigmoid, not
            by softmax. A mean or a sum of logits ranks videos as well, and stays.
    """
    fusion = head.get('average_clips')
    if multi_label and fusion in ('prob', None):
        fusion = 'sigmoid'
    if _name(head) != HEAD or (fusion in BY_MMACTION2 and 'temperature' not in head):
        return head
    return type(head)({**head, 'type': OUR_HEAD, 'average_clips': fusion})


def _check_num_classes(key: str, dataset: Any, classes: int | None) -> None:
    number = dataset.get('num_classes')
    if number is None:
        raise ValueError(
            f'{key}.multi_class=True and num_classes is not set, so the length of the multi-hot '
            f'rows is unknown; set {key}.num_classes' + (f'={classes}' if classes else '')
        )
    if number == 1:
        raise ValueError(
            f'{key}.num_classes=1 with multi_class=True: MMAction2 reads a row of one number as a '
            'single label; use two classes (yes and no), or set multi_class=False'
        )
    if classes is not None and number != classes:
        raise ValueError(
            f'{key}.num_classes={number} and the model has {classes} classes, and rows and scores '
            f'must be equally long; set {key}.num_classes or model.cls_head.num_classes'
        )


def _check_loss(key: str, kind: str | None, model: Any) -> None:
    head = model['cls_head']
    if kind == MULTI and _has_softmax_loss(head):
        raise ValueError(
            f'{key}.multi_class=True gives several labels for a video and {SOFTMAX_LOSS} is for '
            "one; set model.cls_head.loss_cls=dict(type='BCELossWithLogits') and "
            'model.cls_head.multi_class=True'
        )
    if kind != SINGLE:
        return
    fix = f'set {key}.multi_class=True and {key}.num_classes'
    if head.get('multi_class'):
        raise ValueError(
            f'model.cls_head.multi_class=True and {key} gives one label for a video; {fix}, or '
            'remove model.cls_head.multi_class'
        )
    loss = _name(head.get('loss_cls') or {})
    becomes_row = head.get('label_smooth_eps') or (model.get('data_preprocessor') or {}).get(
        'blending'
    )
    if loss in HARD_LABELS_FAIL and not becomes_row:
        raise ValueError(
            f'model.cls_head.loss_cls.type={loss} needs a row of 0 and 1 for each video and {key} '
            f'gives one label; {fix}, or take {SOFTMAX_LOSS}'
        )


def _check_fusion(head: Any, multi_label_data: bool, scored: bool) -> Iterator[str]:
    """Check how the scores of views become one; choose it where videos will be scored."""
    fusion, ours = head.get('average_clips'), str(head.get('type')).startswith('mmtimesformer.')
    if scores_are_sigmoids(head, multi_label_data):
        if fusion == 'prob' or (fusion is None and scored):
            found = "='prob' is a softmax over the classes" if fusion else ' is not set'
            head['average_clips'] = fusion = 'sigmoid'
            yield (
                f"model.cls_head.average_clips{found}, and {_why_sigmoid(head)}: 'sigmoid' is "
                "used, the mean of the sigmoid over views; set average_clips='sigmoid'"
            )
    elif fusion == 'sigmoid':
        yield (
            "model.cls_head.average_clips='sigmoid' with a loss that trains a softmax: the scores "
            "of a video will not sum to 1; 'prob' is the mean of the softmax"
        )
    if fusion not in BY_MMACTION2 and not ours:
        head['type'] = OUR_HEAD
        yield (
            f"MMAction2's {HEAD} has no average_clips={fusion!r}: {OUR_HEAD} is used, which has "
            'the same parameters (model.cls_head.type)'
        )


def softmax_refused(head: Any) -> str:
    """Return why views of a head whose classes were trained apart are not fused by softmax."""
    return (
        "model.cls_head.average_clips='prob' is a softmax over the classes, and "
        f"{_why_sigmoid(head)}; set model.cls_head.average_clips='sigmoid'"
    )


def _why_sigmoid(head: Any) -> str:
    loss = _name(head.get('loss_cls') or {})
    if loss in SIGMOID_LOSSES:
        return f'{loss} trains a sigmoid for each class'
    return 'with multi_class=True each class has a probability of its own'


def _check_metrics(key: str, evaluator: Any, kind: str | None, fused: bool) -> None:
    for where, metric in _metrics(key, evaluator):
        if _name(metric) == 'AccMetric':
            for name in _names_of(where, metric):
                _check_metric(f'{where}.metric_list', name, kind)
            _check_metric_options(f'{where}.metric_options', metric.get('metric_options'))
        elif _name(metric) == 'ConfusionMatrix':
            if kind == MULTI:
                raise ValueError(
                    f'{where}: ConfusionMatrix needs one label for each video and the data set has '
                    f'multi_class=True; remove {where}, or take AccMetric with '
                    "metric_list='mean_average_precision'"
                )
        else:
            continue
        if not fused:
            raise ValueError(
                'model.cls_head.average_clips is not set, so every view keeps its scores, and '
                f"{_name(metric)} needs one row for each video; set average_clips='prob', the mean "
                'of the softmax'
            )


def _check_metric_options(key: str, options: Any) -> None:
    """Check options of ``AccMetric``, which ignores unknown ones and refuses a list at the end."""
    known: dict[str, set[str]] = {name: set() for name in SINGLE_LABEL | MULTI_LABEL}
    known['top_k_accuracy'] = {'topk'}
    if not isinstance(options, dict):
        return
    for name, values in options.items():
        if name not in known:
            raise ValueError(
                f'{key}.{name} would be ignored: AccMetric has options for '
                f'top_k_accuracy only; set {key}.top_k_accuracy.topk or remove it'
            )
        for option in values if isinstance(values, dict) else ():
            if option not in known[name]:
                raise ValueError(
                    f'{key}.{name}.{option} would be ignored: AccMetric reads '
                    f'top_k_accuracy.topk only; set that or remove it'
                )
    topk = (options.get('top_k_accuracy') or {}).get('topk', 1)
    ks = topk if isinstance(topk, tuple) else (topk,)
    if not ks or any(isinstance(k, bool) or not isinstance(k, int) or k < 1 for k in ks):
        raise TypeError(
            f'{key}.top_k_accuracy.topk={topk!r} is no positive integer or tuple of them; set '
            f'{key}.top_k_accuracy.topk="(1,5)"'
        )


def check_metric_names(key: str, metric: Any) -> None:
    """Check the names in ``metric_list`` of an ``AccMetric``.

    Raises:
        ValueError: There is no such metric.
        TypeError: ``metric_list`` is neither text nor a tuple.
    """
    known = sorted(SINGLE_LABEL | MULTI_LABEL)
    for name in _names_of(key, metric) if _name(metric) == 'AccMetric' else ():
        if name not in known:
            near = near_name(name, known)
            raise ValueError(
                f'{key}.metric_list: AccMetric has no {name!r}, only {", ".join(known)}{near}'
            )


def _check_metric(key: str, name: str, kind: str | None) -> None:
    if kind == MULTI and name in SINGLE_LABEL:
        raise ValueError(
            f'{key}: {name} needs one label for each video and the data set has multi_class=True; '
            f"set {key}=('mean_average_precision',)"
        )
    if kind == SINGLE and name in MULTI_LABEL:
        raise ValueError(
            f'{key}: {name} needs a multi-hot row for each video and the data set gives one label; '
            f"set {key}=('top_k_accuracy',), or multi_class=True and num_classes of the data set"
        )


def _check_best(cfg: Any, scored: Iterable[str]) -> None:
    """Check that ``save_best`` names a value that the metrics of the validation give."""
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    best = hook.get('save_best') if isinstance(hook, dict) else None
    wanted = [best] if isinstance(best, str) else list(best or ())
    if 'val' not in scored or not wanted:
        return
    if wanted == ['auto']:
        first = next(_metrics('val_evaluator', cfg.get('val_evaluator')), ('', {}))
        if _name(first[1]) == 'ConfusionMatrix':
            raise ValueError(
                "default_hooks.checkpoint.save_best='auto' takes the first value of val_evaluator, "
                "and ConfusionMatrix gives a matrix; set save_best='acc/top1', or name AccMetric "
                'first'
            )
        return
    known: list[str] = []
    for where, metric in _metrics('val_evaluator', cfg.get('val_evaluator')):
        if _name(metric) != 'AccMetric':
            return  # another metric may call its values anything
        prefix = metric.get('prefix') or 'acc'
        for name in _names_of(where, metric):
            ks = ((metric.get('metric_options') or {}).get(name) or {}).get('topk', (1, 5))
            ks = [ks] if isinstance(ks, int) else ks
            values = (
                [f'top{k}' for k in ks]
                if name == 'top_k_accuracy'
                else [(SINGLE_LABEL | MULTI_LABEL)[name]]
            )
            known += [f'{prefix}/{value}' for value in values]
    for name in wanted:
        if known and name not in known:
            raise ValueError(
                f'default_hooks.checkpoint.save_best={name!r} is no value of val_evaluator, which '
                f'gives {", ".join(known)}; set one of them'
            )


def _metrics(key: str, evaluator: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk through the metrics of an evaluator, with their keys."""
    if isinstance(evaluator, dict):
        if _name(evaluator) == 'Evaluator':
            yield from _metrics(f'{key}.metrics', evaluator.get('metrics'))
        else:
            yield key, evaluator
    elif isinstance(evaluator, list | tuple):
        for i, metric in enumerate(evaluator):
            yield from _metrics(f'{key}.{i}', metric)


def _names_of(key: str, metric: dict[str, Any]) -> Sequence[str]:
    """Return the names in ``metric_list``, of which there may be one as text."""
    names = metric.get('metric_list', tuple(SINGLE_LABEL))
    if isinstance(names, str):
        return (names,)
    if not isinstance(names, tuple):
        raise TypeError(
            f'{key}.metric_list={names!r} is a {type(names).__name__} and AccMetric takes a text '
            "or a tuple; set metric_list=('mean_average_precision',)"
        )
    return names


def _one_kind(datasets: list[tuple[str, Any]]) -> str | None:
    """Return the kind of all data sets of a loader; wrappers have none."""
    kinds = {kind_of(dataset) for _, dataset in datasets} - {None}
    return kinds.pop() if len(kinds) == 1 else None


def _has_softmax_loss(head: Any) -> bool:
    loss = head.get('loss_cls') or {'type': SOFTMAX_LOSS}
    kind = loss.get('type') if isinstance(loss, dict) else None
    return kind in (SOFTMAX_LOSS, f'mmaction.{SOFTMAX_LOSS}') and not _uses_sigmoid(loss)


def _uses_sigmoid(loss: Any) -> bool:
    """Whether a loss of OpenMMLab's other libraries is set to sigmoids."""
    return isinstance(loss, dict) and bool(loss.get('use_sigmoid'))


def _name(component: Any) -> str:
    """Return the name of a component's class, without the scope."""
    kind = component.get('type') if isinstance(component, dict) else None
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def _classes(component: Any) -> Sequence[type]:
    """Return the class of a component and its parents, if it is registered; nothing is imported."""
    cls = component.get('type') if isinstance(component, dict) else None
    if isinstance(cls, str):
        registries = (roots.MODELS, *roots.MODELS.children.values())
        found = (registry.module_dict.get(_name(component)) for registry in registries)
        cls = next((one for one in found if one is not None), None)
    return cls.__mro__ if isinstance(cls, type) else ()
