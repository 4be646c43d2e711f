# 28 epochs of AdamW in batches of 16 videos, a warm-up of 3, then a cosine down to zero.
#
# 1,600 videos / 16 = 100 steps an epoch, 2,800 in all. Twice this learning rate leaves some seeds
# where the direction of a motion is not learned.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=28, val_begin=1, val_interval=7)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=7e-4, betas=(0.9, 0.98), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=3, end=28, convert_to_iter_based=True),
]

# --auto-scale-lr multiplies lr by (processes x videos per process) / base_batch_size.
auto_scale_lr = dict(enable=False, base_batch_size=16)
