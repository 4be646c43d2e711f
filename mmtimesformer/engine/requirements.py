"""Whether MMAction2 is here and can be used; it is an extra, and is asked for at first use."""

import importlib
import warnings

INSTALL = 'pip install "mmtimesformer[mmaction]"'


def require_mmaction() -> None:
    """See that MMAction2 and mmcv can be imported.

    mmcv and mmcv-lite overwrite each other's files, and removing one leaves an empty ``mmcv``
    folder that still imports, as a namespace without a version.

    Raises:
        ModuleNotFoundError: One is missing or unusable; the message ends with the command that
            helps.
    """
    # Said by mmcv-lite at import of operators that no TimeSformer has.
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    try:
        mmcv = importlib.import_module('mmcv')
    except ModuleNotFoundError as error:
        raise _missing(f'{error.name} is not installed', INSTALL) from error
    if not hasattr(mmcv, '__version__'):
        raise _missing(
            'mmcv is an empty folder, left behind when mmcv or mmcv-lite was removed',
            'pip install --force-reinstall --no-deps mmcv-lite==2.0.1',
        )
    try:
        importlib.import_module('mmaction')
    except ModuleNotFoundError as error:
        raise _missing(f'{error.name} is not installed', INSTALL) from error
    except AssertionError as error:  # MMAction2's own words on versions that do not fit
        raise _missing(str(error).split('. ')[0], INSTALL) from error


def _missing(what: str, command: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f'videos are read and models are trained by MMAction2, but {what}; run: {command}'
    )
