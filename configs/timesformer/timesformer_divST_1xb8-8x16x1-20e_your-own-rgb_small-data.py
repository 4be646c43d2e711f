"""As timesformer_divST_1xb8-8x16x1-20e_your-own-rgb, with all that helps on a few hundred clips.

Train:  python tools/data/prepare.py folder VIDEOS --out data/your_own
        python tools/train.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb_small-data
Test:   python tools/test.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb_small-data CHECKPOINT
Cost:   121M parameters, of which 60M are trained; 196G multiply-adds for a clip of 8 x 224 x 224;
        a test takes 3 views.
Decay:  of matrices alone; layer-wise learning rates.
Expect: not measured; it depends on your videos.

What each line is for: docs/small_data.md.
"""

_base_ = 'timesformer_divST_1xb8-8x16x1-20e_your-own-rgb.py'

model = dict(
    # Half of the blocks keep the weights of Kinetics-400: fewer weights to overfit, and half of the
    # memory and time of a backward pass. 12 trains the classifier alone, -1 everything
    backbone=dict(frozen_stages=6),
    # No mixup or cutmix: with few clips of a class, mixed clips are hardly like any real one, and
    # the loss of the few real ones is diluted. From some thousand clips on try ..._mix.py
    data_preprocessor=dict(blending=None),
)
custom_hooks = [
    # The average of the weights warms up: after 10 steps it covers 5, and never the initial weights
    dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.002, gamma=10),
    # End when the validation has not improved for 5 epochs; the best checkpoint stays
    # An improvement is 0.1 % or more; MMEngine's min_delta of 0.1 would be 10 %
    dict(
        type='mmtimesformer.EarlyStoppingHook',
        monitor='acc/top1',
        rule='greater',
        min_delta=0.001,
        patience=5,
    ),
]
default_hooks = dict(checkpoint=dict(save_best='acc/top1', rule='greater', max_keep_ckpts=1))
