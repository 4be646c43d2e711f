"""Fixes for versions of other packages, and checks of the private names that we use.

Importing this package applies all fixes. They change nothing on other versions, and import
neither MMAction2 nor mmcv: what concerns MMAction2 is fixed when it is imported.
"""

from mmtimesformer.compat import external_configs, mmaction2_1_2, numpy_2

external_configs.repair_external_configs()
mmaction2_1_2.stand_in_for_missing_modules()
numpy_2.repair_color_jitter()
numpy_2.restore_removed_names()
