"""What an export of an annotation tool holds."""

from dataclasses import dataclass, field
from typing import Any

from mmtimesformer.finetuning.labels_csv import Labeled


@dataclass
class Imported:
    """The videos of an export of an annotation tool.

    Attributes:
        videos: Those with labels.
        left_out: Paths of those without an annotation.
    """

    videos: list[Labeled] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def dicts(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list of JSON; none of anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
