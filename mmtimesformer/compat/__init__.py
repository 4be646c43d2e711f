"""Fixes for versions of other packages, and checks of the private names that we use.

Importing this package applies all fixes. They change nothing on other versions, and import
neither MMAction2 nor mmcv.
"""

from mmtimesformer.compat import mmaction2_1_2, numpy_2

mmaction2_1_2.stand_in_for_drn()
numpy_2.repair_color_jitter()
