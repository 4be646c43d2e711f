# 15 epochs of SGD for a total batch of 64 videos (8 GPUs x 8), by the official code's schedule.
#
# Weight decay is on all parameters, as it was there. The learning rate falls to a tenth at epochs
# 11 and 14; gradients are not clipped.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=15, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=1e-4, nesterov=True),
)
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=15, by_epoch=True, milestones=[11, 14], gamma=0.1)
]

# --auto-scale-lr multiplies lr by (GPUs x videos per GPU) / base_batch_size.
auto_scale_lr = dict(enable=False, base_batch_size=64)
