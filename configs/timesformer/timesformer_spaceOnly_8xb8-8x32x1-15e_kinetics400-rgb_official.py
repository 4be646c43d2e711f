r"""TimeSformer-B with space-only attention on Kinetics-400, by the official protocol.

Train:  bash tools/dist_train.sh timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb_official 8
        python tools/train.py timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb_official \
            --accumulate
Test:   python tools/test.py timesformer_spaceOnly_8xb8-8x32x1-15e_kinetics400-rgb_official \
            CHECKPOINT
Cost:   86.11M parameters; 141G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: not measured; the official zoo has no score for it.
"""

_base_ = 'timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official.py'

model = dict(backbone=dict(attention_type='space_only'))
