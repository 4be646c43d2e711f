"""TimeSformer-B with divided space-time attention on Kinetics-400, by MMAction2's protocol.

Train:  bash tools/dist_train.sh timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb 8
        python tools/train.py timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb --auto-scale-lr
Test:   python tools/test.py timesformer_divST_8xb8-8x32x1-15e_kinetics400-rgb CHECKPOINT
Cost:   122M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of all parameters, as in the original.
Expect: top-1 77.69, top-5 93.45 (quoted from MMAction2's model zoo, not measured here).
"""

_base_ = [
    '../_base_/models/timesformer_base.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/protocols/kinetics_mmaction2.py',
    '../_base_/schedules/sgd_15e.py',
    '../_base_/default_runtime.py',
]

custom_imports = dict(imports=['mmtimesformer'], allow_failed_imports=False)

# The data set's videos, prepared by the protocol
model = dict(cls_head=_base_.fusion, data_preprocessor=_base_.data_preprocessor)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
