r"""PP-TimeSformer on Kinetics-400, for the weights that PaddleVideo distilled.

To test and convert ppTimeSformer_k400_8f_distill.pdparams of PaddleVideo's model zoo. PaddleVideo
published neither the teacher nor the recipe: trained by this config, it learns from labels alone.

Train:  bash tools/dist_train.sh pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb_distill 8
        python tools/train.py pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb_distill \
            --accumulate
Test:   python tools/test.py pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb_distill \
            ppTimeSformer_k400_8f_distill.pdparams
Cost:   122M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  7e-5; none on class token, positions, times and the classifier's bias, as in the original.
Expect: top-1 78.87 (quoted from PaddleVideo's model zoo, not measured here).
"""

_base_ = 'pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb.py'
