# 15 epochs of SGD for a total batch of 64 videos (8 GPUs x 8), by MMAction2's protocol.
#
# Weight decay is on all parameters. MMAction2's config means to exempt cls_token, pos_embed and
# time_embed, but its keys ('.backbone.cls_token', ...) match no parameter: what it trained with is
# this file has, as the official code did.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=15, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=1e-4, nesterov=True),
    clip_grad=dict(max_norm=40, norm_type=2),
)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=15, by_epoch=True, milestones=[5, 10], gamma=0.1)
]

# --auto-scale-lr multiplies lr by (GPUs x videos per GPU) / base_batch_size.
auto_scale_lr = dict(enable=False, base_batch_size=64)
