"""Repairs of other packages, each in a file named after the version that needs it.

Importing this package applies them all. They change nothing on a version that needs no help, and
they import neither MMAction2 nor mmcv.
"""

from mmtimesformer.compat import mmaction2_1_2, numpy_2

mmaction2_1_2.stand_in_for_drn()
numpy_2.repair_color_jitter()
