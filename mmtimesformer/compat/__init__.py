"""What lets other versions than the reference stack's work, each in a file named after its version.

Importing this package applies them all. They change nothing on a version that needs no help, and
they import neither MMAction2 nor mmcv.
"""

from mmtimesformer.compat import mmaction2_1_2

mmaction2_1_2.stand_in_for_drn()
