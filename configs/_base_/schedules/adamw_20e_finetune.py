# 20 epochs of AdamW for fine-tuning on a small data set, in batches of 8 videos on one GPU.
#
# A warm-up of 2 epochs, then a cosine; the nearer a layer is to the pixels, the less it moves (each
# block at 0.75 of the rate of the block after it). What is tested is the moving average of the
# weights (EMA), which is steadier than the last step. It averages over the last tenth of the steps
# so far, and over 500 steps from step 5,000 on: momentum = max(0.002, gamma / (gamma + step)). With
# a constant momentum of 0.002, 59 % of the average would still be the start after 97 clips x 20
# epochs = 260 steps.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    constructor='mmtimesformer.LayerDecay',
    paramwise_cfg=dict(decay_rate=0.75),
    optimizer=dict(type='AdamW', lr=2.5e-4, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=2, end=20, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=0.002, gamma=10)]

# --auto-scale-lr multiplies lr by (GPUs x videos per GPU) / base_batch_size.
auto_scale_lr = dict(enable=False, base_batch_size=8)
