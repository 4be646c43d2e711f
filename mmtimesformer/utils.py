"""The function that ``mmengine.hub.get_model`` imports from every OpenMMLab package."""

from mmengine.registry import init_default_scope as set_default_scope

from mmtimesformer.cli import require_mmaction


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register the components of MMAction2; ours are found by their prefix.

    Args:
        init_default_scope: Make ``mmaction`` the default scope, as in our configs.

    Raises:
        ImportError: MMAction2 is not installed.
    """
    require_mmaction()
    if init_default_scope:
        set_default_scope('mmaction')
