"""TimeSformer-B with space-only attention on Kinetics-400, by MMAction2's protocol.

Frames do not attend to each other; the mean of their class tokens is classified.

Train:  bash tools/dist_train.sh timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb 8
        python tools/train.py timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb --auto-scale-lr
Test:   python tools/test.py timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb CHECKPOINT
Cost:   86.11M parameters; 141G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 76.93, top-5 92.88 (quoted from MMAction2's model zoo, not measured here).
"""

_base_ = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb.py'

model = dict(backbone=dict(attention_type='space_only'))
