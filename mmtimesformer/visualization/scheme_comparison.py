"""Draw a comparison of the attention schemes: top-1 accuracy as bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmtimesformer.visualization.figures import BLUE, GREY, RED, picture, shown_name, shown_title


@dataclass(frozen=True)
class SchemeResult:
    """The accuracy and cost of one attention scheme."""

    name: str  # such as 'divided'
    parameters: int  # of the whole model
    top1: float  # accuracy, 0 to 1
    axis_top1: float  # accuracy of the axis of motion, whatever the direction, 0 to 1
    seconds: float  # duration of the training


def draw_scheme_comparison(
    results: Sequence[SchemeResult], path: str | Path, title: str = ''
) -> None:
    """Draw top-1 and axis accuracy of each scheme, and the limit of models blind to frame order.

    Args:
        results: One for each scheme, in the order of the bars.
        path: The picture.
        title: Stands above it.
    """
    with picture(path, 6.4, 3.8) as (_, axes):
        for i, result in enumerate(results):
            for offset, accuracy, color, alpha in (
                (-0.2, result.axis_top1, GREY, 0.45),
                (0.2, result.top1, BLUE, 1.0),
            ):
                axes.bar(i + offset, 100 * accuracy, width=0.36, color=color, alpha=alpha)
                text = f'{100 * accuracy:.1f}'
                axes.text(i + offset, 100 * accuracy + 1.5, text, ha='center', fontsize=8.5)
        axes.axhline(50, color=RED, lw=1.2, ls='--')
        axes.annotate(
            'without frame order:\n50 % at most', (1.005, 50), xycoords=('axes fraction', 'data'),
            color=RED, fontsize=8, va='center', annotation_clip=False,
        )  # fmt: skip
        axes.set_xticks(
            range(len(results)),
            [f'{shown_name(r.name)}\n{r.parameters / 1e3:.0f} k parameters' for r in results],
        )
        axes.tick_params(axis='x', length=0)
        axes.set_ylim(0, 112)
        axes.set_yticks(range(0, 101, 25))
        axes.set_ylabel('accuracy (%)')
        axes.bar(0, 0, color=GREY, alpha=0.45, label='axis of the motion')
        axes.bar(0, 0, color=BLUE, label='axis and direction (top-1)')
        axes.legend(loc='upper right', ncols=2, fontsize=8, borderaxespad=0)
        axes.set_title(shown_title(title))
