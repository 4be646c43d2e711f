"""The largest models of the zoo, at full width, depth and clip: one forward pass on a CPU each.

    pytest tests/configs/test_full_size_forward.py -s

prints the time and memory that configs/timesformer/README.md shows.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LARGEST = [
    'timesformer_divST-HR_8xb1-16x16x1-15e_kinetics400-rgb_official',
    'timesformer_divST-L_8xb1-96x4x1-15e_kinetics400-rgb_official',
    'timesformer_divST-L_8xb1-u64-15e_sthv2-rgb_official',
    'timesformer_divST_8xb1-64x32x1-15e_howto100m-rgb_official',
    'timesformer_divST_8xb1-96x32x1-15e_howto100m-rgb_official',
]
ONE_CLIP = """
import re, sys, time, torch
from pathlib import Path
from mmengine.config import Config
from mmtimesformer.registry import MODELS

backbone = Config.fromfile(sys.argv[1]).model.backbone
model = MODELS.build({**backbone, 'type': 'TimeSformer', 'init_cfg': None}).eval()
video = torch.rand(1, 3, backbone.num_frames, backbone.img_size, backbone.img_size)
started = time.monotonic()
with torch.inference_mode():
    features = model(video)
seconds = time.monotonic() - started
assert features.shape == (1, 768) and features.isfinite().all()
# getrusage would count what the process was forked from
gigabytes = int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) / 2**20
print(f'{tuple(video.shape)[2:]}: {seconds:.0f} s, {gigabytes:.1f} GiB')
"""


@pytest.mark.slow
@pytest.mark.parametrize('name', LARGEST)
def test_one_clip_goes_through(name: str) -> None:
    path = ROOT / 'configs' / 'timesformer' / f'{name}.py'
    done = subprocess.run(
        [sys.executable, '-c', ONE_CLIP, path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(name, done.stdout.splitlines()[-1])
