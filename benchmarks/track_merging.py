"""Merged tracks: accuracy, moved scores, speed and features: python benchmarks/track_merging.py.

    python benchmarks/track_merging.py --parts scores      # the demo model; needs `make demo`
    python benchmarks/track_merging.py --parts speed       # B size, random weights
    python benchmarks/track_merging.py --parts             # the tables again

Scores: the model of ``make demo`` on the validation videos of Moving Shapes, with one matching for
all frames and with one for each. "Moved" is half the sum of the absolute changes of the
probabilities of a video, averaged over videos: 0 for none, 1 for all.

Speed: TimeSformer-B, 8 x 224 x 224, random weights, one clip. Values of ``r`` take turns in one
process; a ratio is the median over rounds. Cosine is that of the class token of the merged and the
unmerged pass, the least of the example videos: pans over the two photographs that scikit-learn has,
and clips of Moving Shapes, enlarged.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import moving_shapes_clips as shapes
from machine import machine_name
from peers import quartiles

from mmtimesformer import TimeSformer, VideoClassifier
from mmtimesformer.models import set_merge

ROOT = Path(__file__).resolve().parents[1]
MATCHINGS = ('track', 'frame')
# Up to what 196 patches allow, p // (layers + 1)
SETTINGS = (
    (0, None, 'track'),
    (4, None, 'track'),
    (8, None, 'track'),
    (12, None, 'track'),
    (16, None, 'track'),
    (39, (0, 1, 2, 3), 'track'),
    (8, None, 'frame'),
)
Run = tuple[float, float, float]  # wall and CPU seconds, cosine of the class token
TINY = (1, 2, 3, 4, 5, 6, 7, 8)  # of 16 patches


def measure_scores(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return top-1 accuracy and moved scores of the demo model over r, for both matchings."""
    classifier = VideoClassifier(checkpoint=str(args.checkpoint))
    model = classifier.model.eval()
    lines = (args.data / 'val.txt').read_text().splitlines()[: args.videos]
    names, labels = zip(*(line.rsplit(maxsplit=1) for line in lines), strict=True)
    with torch.no_grad():
        views = [classifier.clips(str(args.data / 'videos_val' / name)).half() for name in names]

    def run(r: int, matching: str) -> tuple[float, Tensor]:
        set_merge(model.backbone, r, matching=matching)
        with torch.no_grad():
            logits = [model.cls_head(model.backbone(clips.float())) for clips in views]
        scores = torch.stack([one.softmax(-1).mean(0) for one in logits])
        right = scores.argmax(1) == torch.tensor([int(label) for label in labels])
        return 100 * right.double().mean().item(), scores

    top1, plain = run(0, 'track')
    rows: list[dict[str, Any]] = [{'r': 0, 'videos': len(names), 'top1': top1}]
    for r in TINY:
        row: dict[str, Any] = {'r': r}
        for matching in MATCHINGS:
            top1, scores = run(r, matching)
            moved = (scores - plain).abs().sum(1).mean().item() / 2
            row[matching] = {'top1': top1, 'moved': moved}
        rows.append(row)
    return rows


def example_videos() -> dict[str, Tensor]:
    """Return two pans over photographs and two clips of Moving Shapes, ``1 3 8 224 224``."""
    from sklearn.datasets import load_sample_images

    pans = zip(load_sample_images().images, ((20, 10, 4), (60, 8, -1)), strict=True)
    photographs = [_pan(torch.tensor(image), *path) for image, path in pans]
    videos, _ = shapes.draw('val', 2)
    clips = shapes.to_input(shapes.middle_clips(videos))[[0, 2]]
    large = [F.interpolate(clip.transpose(0, 1), size=224, mode='bilinear') for clip in clips]
    drawn = [clip.transpose(0, 1) for clip in large]
    names = ('pan, china', 'pan, flower', 'shape, 1', 'shape, 2')
    return {name: clip[None] for name, clip in zip(names, photographs + drawn, strict=True)}


def _pan(image: Tensor, x: int, dx: int, dy: int) -> Tensor:
    """Move a window of 224 x 224 pixels over an image, for 8 frames: ``3 8 224 224``."""
    image = F.interpolate(image.permute(2, 0, 1)[None].float(), size=(300, 450), antialias=True,
                          mode='bicubic')[0]  # fmt: skip
    frames = [image[:, 10 + dy * i : 234 + dy * i, x + dx * i : x + dx * i + 224] for i in range(8)]
    return (torch.stack(frames, 1) - shapes.MEAN) / shapes.STD


def measure_speed(rounds: int, precisions: list[str]) -> list[dict[str, Any]]:
    """Return time and feature cosine of each setting, against nothing merged in fp32.

    A round runs every setting on every example video.
    """
    torch.manual_seed(0)
    model = TimeSformer(temporal_init='random').eval()
    videos = example_videos()
    plain = {name: _run(model, video, 'fp32')[1] for name, video in videos.items()}
    rows = []
    for precision in precisions:
        runs: dict[Any, list[Run]] = {setting: [] for setting in SETTINGS}
        for name in list(videos) * rounds:
            for setting in SETTINGS:
                set_merge(model, *setting)
                times, token = _run(model, videos[name], precision)
                cosine = F.cosine_similarity(token.float(), plain[name]).item()
                runs[setting].append((*times, cosine))
                print(precision, setting, name, *runs[setting][-1], flush=True)
        rows += [_row(precision, setting, runs) for setting in SETTINGS]
    return rows


def _row(precision: str, setting: Any, runs: dict[Any, list[Run]]) -> dict[str, Any]:
    pairs = list(zip(runs[SETTINGS[0]], runs[setting], strict=True))
    wall, cpu = (quartiles([one[i] / other[i] for one, other in pairs]) for i in range(2))
    return {
        'precision': precision,
        **dict(zip(('r', 'layers', 'matching'), setting, strict=True)),
        'cpu_seconds': statistics.median(run[1] for run in runs[setting]),
        'runs': len(pairs),
        'wall': wall,
        'cpu': cpu,
        'cosine': min(run[2] for run in runs[setting]),
    }


@torch.no_grad()
def _run(model: TimeSformer, video: Tensor, precision: str) -> tuple[tuple[float, float], Tensor]:
    """Return wall and CPU seconds, and the class token."""
    wall, cpu = time.perf_counter(), time.process_time()
    with torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16'):
        output = model(video)
    return (time.perf_counter() - wall, time.process_time() - cpu), output


def as_tables(results: dict[str, Any]) -> str:
    """Write the results as Markdown."""
    lines = ['# Merged tracks', '']
    if rows := results.get('scores'):
        first = rows[0]
        lines += [
            f'Moving Shapes, {first["videos"]} validation videos, 16 patches a frame, 2 blocks '
            f'(merged after the first), top-1 {first["top1"]:.2f} without merging.',
            '',
            '| r of 16 | tracks: top-1 | moved | per frame: top-1 | moved | ratio of moved |',
            '|---|---|---|---|---|---|',
        ]
        for row in rows[1:]:
            one, other = row['track'], row['frame']
            ratio = other['moved'] / one['moved'] if one['moved'] else float('inf')
            lines.append(
                f'| {row["r"]} | {one["top1"]:.2f} | {one["moved"]:.4f} | {other["top1"]:.2f} | '
                f'{other["moved"]:.4f} | {ratio:.1f} |'
            )
        lines.append('')
    if rows := results.get('speed'):
        lines += [
            f'B size, random weights: {results["machine"]}',
            '',
            '| precision | r | after blocks | matching | speed, CPU time | wall | cosine |',
            '|---|---|---|---|---|---|---|',
        ]
        for row in rows:
            layers = ', '.join(map(str, row['layers'] or ['all but the last']))
            cpu, wall = (
                f'{middle:.2f} ({low:.2f} to {high:.2f})'
                for low, middle, high in (row['cpu'], row['wall'])
            )
            lines.append(
                f'| {row["precision"]} | {row["r"]} | {layers} | {row["matching"]} | {cpu} | '
                f'{wall} | {row["cosine"]:.4f} |'
            )
        lines.append('')
    return '\n'.join(lines)


def main() -> int:
    """Measure what was asked for; add it to the results and write the tables."""
    demo = ROOT / 'work_dirs/demo/divST/epoch_28.pth'
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--parts', nargs='*', default=['scores', 'speed'])
    parser.add_argument('--checkpoint', type=Path, default=demo, help='of the demo model')
    parser.add_argument('--data', type=Path, default=ROOT / 'data/moving_shapes')
    parser.add_argument('--videos', type=int, default=400)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--precisions', nargs='*', default=['fp32', 'bf16'])
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'results')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    file = args.out / 'track_merging.json'
    results = json.loads(file.read_text()) if file.exists() else {}
    results['machine'] = machine_name(args.threads)
    if 'scores' in args.parts:
        results['scores'] = measure_scores(args)
    if 'speed' in args.parts:
        results['speed'] = measure_speed(args.rounds, args.precisions)
    file.write_text(json.dumps(results, indent=1) + '\n')
    file.with_suffix('.md').write_text(as_tables(results))
    print(as_tables(results))
    return 0


if __name__ == '__main__':
    sys.exit(main())
