r"""TimeSformer with ViT-H/14 and divided space-time attention on Kinetics-400, sharded.

Train:  bash tools/dist_train.sh timesformer-vit-huge-p14_divST_8xb8-8x32x1-15e_kinetics400-rgb 8
        NNODES=8 RDZV_ENDPOINT=first-machine:29400 bash tools/dist_train.sh \
            timesformer-vit-huge-p14_divST_8xb8-8x32x1-15e_kinetics400-rgb 8 --auto-scale-lr
Test:   python tools/test.py \
            timesformer-vit-huge-p14_divST_8xb8-8x32x1-15e_kinetics400-rgb CHECKPOINT
Cost:   894M parameters; 1,874G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
        Each process keeps a shard of weights, gradients and momentum, see
        docs/sharded_training.md.
Decay:  of all parameters, as in the original.
Expect: not measured; MMAction2's protocol for TimeSformer-B, in bfloat16, at another size.
"""

_base_ = [
    '../_base_/models/timesformer_vit-huge-p14.py',
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

model_wrapper_cfg = dict(type='mmtimesformer.FSDPModelWrapper')
optim_wrapper = dict(type='mmtimesformer.Bfloat16OptimWrapper')
