r"""PP-TimeSformer on Kinetics-400, by PaddleVideo's recipe.

No qkv bias, label smoothing, VideoMix, a warm-up and a cosine. Two things differ from PaddleVideo:
its CutMix cuts time x height and hardly changes the label, a bug of theirs; here it cuts height x
width and mixes labels by that area. Its published score is of averaged weights (SWA), which are in
no config of theirs and not in this one.

Train:  bash tools/dist_train.sh pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb 8
        python tools/train.py pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb \
            --accumulate
Test:   python tools/test.py pp-timesformer_divST_8xb8-8x32x1-20e_kinetics400-rgb CHECKPOINT
Cost:   122M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  7e-5; none on class token, positions, times and the classifier's bias, as in the original.
Expect: top-1 78.61 (quoted from PaddleVideo's model zoo, not measured here).
"""

_base_ = [
    '../_base_/models/timesformer_base.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/protocols/kinetics_pp-paddle.py',
    '../_base_/schedules/sgd_20e_pp-timesformer.py',
    '../_base_/default_runtime.py',
]

custom_imports = dict(imports=['mmtimesformer'], allow_failed_imports=False)

# The data set's videos, prepared by the protocol; queries, keys and values have no bias
model = dict(
    backbone=dict(
        qkv_bias=False,
        init_cfg=dict(
            type='mmtimesformer.Pretrained', checkpoint='timm://vit_base_patch16_224_miil.in21k'
        ),
    ),
    cls_head=dict(num_classes=_base_.num_classes, label_smooth_eps=0.1, **_base_.fusion),
    data_preprocessor=_base_.data_preprocessor,
)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))

# Windows of a validation are random, so its best epoch would be the luckiest: the last one counts.
default_hooks = dict(checkpoint=dict(save_best=None))
