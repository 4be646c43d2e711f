# A tiny TimeSformer: 2 blocks of width 64 over 8 frames of 64 x 64 pixels, 8 classes, from scratch.
#
# Without pretrained weights, time attention is used from the first step: temporal_init='random',
# embeddings as large as patches (embed_init_std), and weights that give a block of width 64 an
# effect at once (Xavier; ViT's deviation of 0.02 is made for a width of 768). Started at zero,
# as for a model seeded from images, time_embed and temporal_fc each wait for the other to move,
# and training stalls with half of the videos right: the axis of every motion is learned, its
# direction is not. See docs/moving_shapes.md.
model = dict(
    type='mmaction.Recognizer3D',
    backbone=dict(
        type='mmtimesformer.TimeSformer',
        num_frames=8,
        img_size=64,
        patch_size=16,
        embed_dims=64,
        num_layers=2,
        num_heads=2,
        mlp_ratio=2.0,
        attention_type='divided_space_time',
        drop_path_rate=0.0,
        temporal_init='random',
        embed_init_std=1.0,
        init_cfg=dict(type='Xavier', layer='Linear', gain=1.6, distribution='uniform'),
    ),
    cls_head=dict(
        type='mmaction.TimeSformerHead',
        num_classes=8,
        in_channels=64,
        average_clips='prob',  # over views: the mean of the softmax
    ),
    data_preprocessor=dict(
        type='mmaction.ActionDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[64.0, 64.0, 64.0],
        format_shape='NCTHW',
    ),
)
