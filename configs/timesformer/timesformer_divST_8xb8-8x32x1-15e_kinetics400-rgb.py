"""TimeSformer-B with divided space-time attention on Kinetics-400, by MMAction2's protocol.

Train:  bash tools/dist_train.sh configs/timesformer/<this file> 8
        On other numbers of GPUs, or one: python tools/train.py <this file> --auto-scale-lr
Test:   python tools/test.py <this file> CHECKPOINT
Cost:   122M parameters; 196G multiply-adds for a clip of 8 x 224 x 224; a test takes 3 views.
Expect: top-1 77.69, top-5 93.45 (quoted from MMAction2's model zoo, not measured here).
"""

_base_ = [
    '../_base_/models/timesformer_base.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/schedules/sgd_15e.py',
    '../_base_/default_runtime.py',
]

custom_imports = dict(imports=['mmtimesformer'], allow_failed_imports=False)
