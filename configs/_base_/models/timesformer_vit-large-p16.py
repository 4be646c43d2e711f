# TimeSformer with ViT-L/16 in width and depth, 8 frames of 224 x 224 pixels, 400 classes.
#
# It starts from Google's image ViT, trained on ImageNet-21K, as TimeSformer-B does from its own.
#
# Of 24 units of memory for each token and block, 'pointwise' keeps 16 and computes the others, the
# cheap ones, twice.
_base_ = 'timesformer_base.py'

model = dict(
    backbone=dict(
        embed_dims=1024,
        num_layers=24,
        num_heads=16,
        with_cp='pointwise',
        init_cfg=dict(
            checkpoint='https://storage.googleapis.com/vit_models/imagenet21k/ViT-L_16.npz'
        ),
    ),
    cls_head=dict(in_channels=1024),
)
