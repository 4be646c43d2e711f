# TimeSformer with ViT-H/14 in width and depth, 8 frames of 224 x 224 pixels, 400 classes.
#
# Patches of 14 pixels: 256 in a frame instead of 196. It starts from Google's image ViT, trained on
# ImageNet-21K, as TimeSformer-B does from its own.
#
# Of 24 units of memory for each token and block, 'mlp' keeps 10 and computes the others twice.
_base_ = 'timesformer_base.py'

model = dict(
    backbone=dict(
        patch_size=14,
        embed_dims=1280,
        num_layers=32,
        num_heads=16,
        with_cp='mlp',
        init_cfg=dict(
            checkpoint='https://storage.googleapis.com/vit_models/imagenet21k/ViT-H_14.npz'
        ),
    ),
    cls_head=dict(in_channels=1280),
)
