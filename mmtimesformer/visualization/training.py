"""Read and draw the training curves: loss and validation accuracy that MMEngine logged."""

from pathlib import Path

from mmtimesformer.fileio.safe_text import parse_json, read_text
from mmtimesformer.visualization.figures import BLUE, GREY, ORANGE, picture, shown_title

LARGEST_LOG = 256 << 20  # bytes, of a million steps
Curve = list[tuple[float, float]]
# Validation scores and their axis labels; the first one that was logged is drawn.
SCORES = {
    'acc/top1': 'validation top-1 (%)',
    'acc/mean_average_precision': 'validation mean average precision (%)',
    'acc/mmit_mean_average_precision': 'validation mean average precision, MMIT (%)',
}


def read_training(work_dir: str | Path) -> dict[str, Curve]:
    """Read the curves of a training, also of one that was interrupted and resumed.

    Args:
        work_dir: As given to ``tools/train.py``.

    Returns:
        ``loss`` and ``lr`` by iteration, and the scores of :data:`SCORES` by epoch, each a list of
        (step, value). Where runs overlap, the later run counts.
    """
    steps: dict[str, dict[float, float]] = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):  # folders named by time
        for number, line in enumerate(read_text(file, LARGEST_LOG).splitlines(), 1):
            scalars = parse_json(line, f'line {number} of {file}')
            if not isinstance(scalars, dict):
                raise ValueError(f'line {number} of {file} is not a JSON object; remove it')
            for name in ('loss', 'lr', *SCORES):
                if scalars.get(name) is not None:  # null is NaN or infinite
                    if not all(_is_number(scalars.get(key)) for key in (name, 'step')):
                        raise ValueError(f'line {number} of {file} lacks a number for {name}')
                    steps.setdefault(name, {})[scalars['step']] = scalars[name]
    return {name: sorted(values.items()) for name, values in steps.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def draw_training(
    curves: dict[str, Curve],
    path: str | Path,
    title: str = '',
    mark: tuple[float, str] | None = None,
) -> None:
    """Draw loss and validation accuracy over the epochs as a PNG.

    Args:
        curves: From :func:`read_training`.
        path: The picture.
        title: Stands above it.
        mark: An accuracy drawn as a line, in percent, and its label.

    Raises:
        ValueError: There is no loss to draw.
    """
    if not curves.get('loss'):
        raise ValueError('there is no loss to draw; train for at least one logging interval')
    score = next((name for name in SCORES if curves.get(name)), 'acc/top1')
    losses, accuracies = curves['loss'], curves.get(score, [])
    epochs = accuracies[-1][0] if accuracies else 1.0
    scale = epochs / losses[-1][0]  # iterations to epochs
    with picture(path, 5.4, 3.2) as (_, axes):
        axes.plot(
            [step * scale for step, _ in losses], [loss for _, loss in losses], color=BLUE, lw=1.2
        )
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, epochs)
        axes.set_xlabel('epoch')
        axes.set_ylabel('training loss', color=BLUE)
        right = axes.twinx()
        right.spines[:].set_visible(False)
        right.plot(
            [epoch for epoch, _ in accuracies], [100 * accuracy for _, accuracy in accuracies],
            color=ORANGE, marker='o', ms=3, lw=1.2,
        )  # fmt: skip
        if mark is not None:
            right.axhline(mark[0], color=GREY, lw=0.8, ls=':')
            right.annotate(
                mark[1], (0.99, mark[0] + 1), xycoords=('axes fraction', 'data'), color=GREY,
                fontsize=7.5, ha='right', va='bottom',
            )  # fmt: skip
        right.set_ylim(0, 101)
        right.set_ylabel(SCORES[score], color=ORANGE)
        axes.set_title(shown_title(title))
