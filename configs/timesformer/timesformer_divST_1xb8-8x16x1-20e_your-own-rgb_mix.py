"""As timesformer_divST_1xb8-8x16x1-20e_your-own-rgb, with mixup and cutmix: for very few videos.

Train:  python tools/data/prepare.py folder VIDEOS --out data/your_own
        python tools/train.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb_mix --auto-scale-lr
Test:   python tools/test.py timesformer_divST_1xb8-8x16x1-20e_your-own-rgb_mix CHECKPOINT
Cost:   121M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of matrices alone; layer-wise learning rates.
Expect: not measured; it depends on your videos.
"""

_base_ = 'timesformer_divST_1xb8-8x16x1-20e_your-own-rgb.py'

# Half of the batches are mixed, half are cut and pasted into each other
model = dict(
    data_preprocessor=dict(
        blending=dict(
            type='mmaction.RandomBatchAugment',
            augments=[
                dict(type='mmaction.MixupBlending', alpha=0.8, num_classes=_base_.num_classes),
                dict(type='mmaction.CutmixBlending', alpha=1.0, num_classes=_base_.num_classes),
            ],
        )
    )
)
