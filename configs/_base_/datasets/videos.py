# How videos are loaded, whatever the data set: one annotation file and one folder for each stage.
#
# A video that cannot be read is replaced in training and counts as wrong in testing.
# The files of each data set are in the other files of this folder, and how videos become clips in
# ../protocols/; a config combines the two.
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmtimesformer.VideoDataset'),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmtimesformer.VideoDataset', test_mode=True),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='mmtimesformer.VideoDataset', test_mode=True),
)

val_evaluator = dict(type='mmaction.AccMetric')
test_evaluator = val_evaluator
