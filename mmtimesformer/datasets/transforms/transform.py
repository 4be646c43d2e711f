"""Base class of transforms, and checks of their arguments."""

from inspect import signature

from mmcv.transforms import BaseTransform


class Transform(BaseTransform):
    """A transform that keeps each argument under its own name, and is printed with them."""

    def __repr__(self) -> str:
        kept = (f'{name}={getattr(self, name)!r}' for name in signature(type(self)).parameters)
        return f'{type(self).__name__}({", ".join(kept)})'


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` if an argument is none of its choices."""
    if value not in choices:
        raise ValueError(f'{name}={value!r} is not known; set it to one of {", ".join(choices)}')
