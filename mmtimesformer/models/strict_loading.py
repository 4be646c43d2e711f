"""Refuse to load weights of another model into the backbone, also with ``strict=False``.

MMEngine's Runner and MMAction2's inference use ``load_state_dict(strict=False)``, which loads the
names that match and reports no error, even if none matches: the model then predicts noise.
"""

from collections.abc import Mapping

from torch import Tensor, nn

ADVICE = (
    "load it by mmtimesformer's tools/train.py or tools/test.py, which adapt any checkpoint to the "
    'model, or convert it once by tools/convert_checkpoint.py'
)


def refuse_other_weights(
    backbone: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: object
) -> None:
    """Refuse the weights of another model, of another attention type, or of another size.

    A part of the backbone's weights is allowed if ``pos_embed`` is not in it (only the trained
    part was saved), and so are none (only a classifier). It is a hook of the backbone, for
    ``register_load_state_dict_pre_hook``; the backbone's names may have a prefix in the state dict.

    Raises:
        ValueError: A name or a shape differs, or weights are missing.
    """
    own = backbone.state_dict()
    given = {
        name.removeprefix(prefix): tensor
        for name, tensor in state_dict.items()
        if name.startswith(prefix)
    }
    for name, tensor in given.items():
        if name not in own:
            raise ValueError(f'the model has no place for {prefix}{name}; {ADVICE}')
        if tensor.shape != own[name].shape:
            raise ValueError(
                f'{prefix}{name} has shape {tuple(tensor.shape)} in the checkpoint and '
                f'{tuple(own[name].shape)} in the model; {ADVICE}'
            )
    missing = [name for name in own if name not in given]
    if missing and 'pos_embed' in given:
        raise ValueError(
            f'the checkpoint lacks {len(missing)} of the {len(own)} weights of the backbone, '
            f'{prefix}{missing[0]} among them; {ADVICE}'
        )
