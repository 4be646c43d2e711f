"""TimeSformer-B fine-tuned on split 2 of UCF101, from weights of Kinetics-400.

Train:  python tools/train.py timesformer_divST_1xb8-8x16x1-20e_ucf101-split2-rgb --auto-scale-lr
Test:   python tools/test.py timesformer_divST_1xb8-8x16x1-20e_ucf101-split2-rgb CHECKPOINT
Cost:   121M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Decay:  of matrices alone; layer-wise learning rates.
Expect: not measured.
"""

_base_ = 'timesformer_divST_1xb8-8x16x1-20e_ucf101-split1-rgb.py'

train_dataloader = dict(dataset=dict(ann_file='data/ucf101/ucf101_train_split_2_videos.txt'))
val_dataloader = dict(dataset=dict(ann_file='data/ucf101/ucf101_val_split_2_videos.txt'))
test_dataloader = dict(dataset=dict(ann_file='data/ucf101/ucf101_val_split_2_videos.txt'))
