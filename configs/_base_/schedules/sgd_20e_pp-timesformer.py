# 20 epochs of SGD for a total batch of 64 videos, as PaddleVideo trains PP-TimeSformer.
#
# The learning rate follows a cosine over all 20 epochs, 0.0025 * (cos(pi * epoch / 20) + 1) / 2,
# set at every step. The first 2 epochs are a line from 0.00025 to what the cosine is by then,
# 0.002439.
# No weight decay on the class token, positions, times and the classifier's bias.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20, val_begin=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.0025, momentum=0.9, weight_decay=7e-5, nesterov=True),
    paramwise_cfg=dict(
        custom_keys={
            'backbone.cls_token': dict(decay_mult=0.0),
            'backbone.pos_embed': dict(decay_mult=0.0),
            'backbone.time_embed': dict(decay_mult=0.0),
            'cls_head.fc_cls.bias': dict(decay_mult=0.0),
        }
    ),
    clip_grad=dict(max_norm=40, norm_type=2),
)
param_scheduler = [
    dict(
        type='mmtimesformer.WarmupCosineLR',
        warmup=2,
        start_factor=0.1,
        begin=0,
        end=20,
        convert_to_iter_based=True,
    )
]

# --auto-scale-lr multiplies lr by (GPUs x videos per GPU) / base_batch_size.
auto_scale_lr = dict(enable=False, base_batch_size=64)
