# TimeSformer-B: ViT-B/16 in width and depth, 8 frames of 224 x 224 pixels, 400 classes.
#
# It starts from an image ViT trained on ImageNet-21K, as in the paper: time attention is a copy of
# space attention, and temporal_fc and time_embed are zero, so that the first forward pass is that
# of the image ViT on every frame. Any ViT-B/16 that docs/checkpoints.md lists can take its place.
#
# Normalisation and the fusion of views are the protocol's, ../protocols/; a config puts them in.
model = dict(
    type='mmaction.Recognizer3D',
    backbone=dict(
        type='mmtimesformer.TimeSformer',
        num_frames=8,
        img_size=224,
        patch_size=16,
        embed_dims=768,
        num_layers=12,
        num_heads=12,
        attention_type='divided_space_time',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='mmtimesformer.Pretrained',
            checkpoint='https://download.openmmlab.com/mmaction/recognition/timesformer/'
            'vit_base_patch16_224.pth',
        ),
    ),
    cls_head=dict(type='mmaction.TimeSformerHead', num_classes=400, in_channels=768),
)
