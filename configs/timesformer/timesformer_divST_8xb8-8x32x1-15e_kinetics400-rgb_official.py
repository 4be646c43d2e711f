r"""TimeSformer-B with divided space-time attention on Kinetics-400, by the official protocol.

Train:  bash tools/dist_train.sh timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official 8
        python tools/train.py timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official \
            --auto-scale-lr
Test:   python tools/test.py timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb_official CHECKPOINT
Cost:   122M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 77.9, top-5 93.2 (quoted from the official model zoo, not measured here).
"""

_base_ = [
    '../_base_/models/timesformer_base.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/protocols/kinetics_official.py',
    '../_base_/schedules/sgd_15e_official.py',
    '../_base_/default_runtime.py',
]

custom_imports = dict(imports=['mmtimesformer', 'mmtimesformer.heads'], allow_failed_imports=False)

# The data set's videos, prepared by the protocol
model = dict(cls_head=_base_.fusion, data_preprocessor=_base_.data_preprocessor)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))

# Crops of a validation are random, so its best epoch is chance: keep the last one instead.
default_hooks = dict(checkpoint=dict(save_best=None))
