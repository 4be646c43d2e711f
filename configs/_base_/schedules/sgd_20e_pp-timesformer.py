# 20 epochs of SGD for a total batch of 64 videos, as PaddleVideo trains PP-TimeSformer.
#
# A warm-up of 2 epochs from a tenth of the rate, then a cosine down to zero. Weight decay is on all
# parameters.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.0025, momentum=0.9, weight_decay=7e-5, nesterov=True),
    clip_grad=dict(max_norm=40, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=0.0, begin=2, end=20, convert_to_iter_based=True),
]

# --auto-scale-lr multiplies lr by (GPUs x videos per GPU) / base_batch_size.
auto_scale_lr = dict(enable=False, base_batch_size=64)
