"""Extract features of many videos.

The model is given as for `mmtimesformer predict`. SOURCE is an annotation file or a folder.
Existing features are not computed again, so run the same command to resume after an interruption.
NaN or infinite features are an error and are not written.

Examples:
    mmtimesformer extract_features CHECKPOINT videos/ --out features
    mmtimesformer extract_features CONFIG CHECKPOINT train.txt --root videos --out features --half
"""

import argparse
import sys
from pathlib import Path

from mmtimesformer.cli import require_mmaction, run_tool
from mmtimesformer.config.command_line import (
    ToolParser,
    add_model,
    check_output,
    parse,
    positive_number,
    whole_number,
)
from mmtimesformer.config.speed import add_speed
from mmtimesformer.terminal import echo

DONE, FAILED, INCOMPLETE = 0, 1, 3
SHOWN = 10  # failed videos on the terminal; manifest.json has all
OUTS = ('cls', 'patch_mean', 'frames', 'tokens')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = ToolParser(__doc__, {3: 'done, but some videos could not be read'})
    add_model(parser)
    parser.add_argument('source', type=Path, help='an annotation file, or a folder of videos')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where they go')
    parser.add_argument('--format', choices=['npy', 'safetensors', 'h5'], default='npy')
    parser.add_argument(
        '--feature',
        choices=OUTS,
        default='cls',
        help='class token, mean of patches, mean of each frame, every patch',
    )
    parser.add_argument(
        '--layers',
        type=int,
        nargs='+',
        metavar='N',
        help='hidden states: 0 is the embedded video, -1 the last layer',
    )
    parser.add_argument(
        '--half', action='store_true', help='store float16: half the disk, 3 digits'
    )
    parser.add_argument(
        '--root',
        type=Path,
        help='what the names in the annotation file are relative to (its folder)',
    )
    parser.add_argument(
        '--fps',
        type=positive_number,
        metavar='FPS',
        help='frames per second of folders of JPG or PNG frames, which have no rate (30)',
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1; the first GPU if there is one')
    add_speed(parser)
    parser.add_argument('--batch-size', type=whole_number(1), default=4, help='videos at a time')
    parser.add_argument('--debug', action='store_true', help='show the stack trace of an error')
    return parse(parser, argv)


def extract(args: argparse.Namespace) -> int:
    """Compute what is not there yet."""
    require_mmaction()
    import numpy as np

    from mmtimesformer.checkpoints.download import fetch
    from mmtimesformer.datasets.preparation.checking import list_videos
    from mmtimesformer.inference import Skipped, VideoClassifier
    from mmtimesformer.inference.feature_store import FeatureFolder, sha256_of
    from mmtimesformer.inference.inputs import Given, first_frame_folder, fps_note
    from mmtimesformer.non_finite import about_scores

    if not args.source.exists():
        raise FileNotFoundError(
            f'{args.source} is neither an annotation file nor a folder of videos (looked in '
            f'{args.source.absolute().parent})'
        )
    root, names = list_videos(args.source, args.root)
    if not names:
        raise ValueError(f'{args.source} names no video')
    if not any((root / name).exists() for name in names):
        raise FileNotFoundError(
            f'none of the {len(names)} videos that {args.source} names is below {root}; set --root'
        )
    folder_of_frames = first_frame_folder(root / name for name in names)
    if args.fps is not None and folder_of_frames is None:
        raise ValueError(
            f'--fps is for folders of frames, and {args.source} names none; a file has its own '
            'rate, so leave --fps out'
        )
    check_output(args.out, '--out', folder=True)
    classifier = VideoClassifier(args.config, args.checkpoint, args.device, speed=args.speed)
    classifier.check_features(args.feature, args.layers)
    settings = {
        'config': classifier.given_config,
        'checkpoint': classifier.checkpoint,
        'sha256': sha256_of(fetch(classifier.checkpoint)),
        'feature': args.feature,
        'layers': args.layers,
        'dtype': 'float16' if args.half else 'float32',
        'fps': args.fps,
        **classifier.origin(),
    }
    folder = FeatureFolder(args.out, args.format, settings)
    if folder_of_frames and (note := fps_note(folder_of_frames, args.fps)):
        echo(note)
    missing = [name for name in names if not folder.is_done(name)]
    if len(missing) < len(names):
        echo(f'{len(names) - len(missing):,} of {len(names):,} are there already')
    failed: dict[str, str] = {}
    broken: list[str] = []  # whose features are not finite
    found = classifier.each_features(
        [Given(name, path=root / name) for name in missing],
        args.feature,
        args.layers,
        args.fps,
        batch_size=args.batch_size,
    )
    for name, (_, result) in zip(missing, found, strict=True):
        if isinstance(result, Skipped):
            failed[name] = result.reason
            broken += [name] * result.non_finite
        elif args.half and np.abs(result).max() > np.finfo(np.float16).max:
            failed[name] = f'its features reach {np.abs(result).max():.3g}, too large for --half'
            broken.append(name)
        else:
            folder.add(name, result.astype(np.float16) if args.half else result)
    done = folder.finish(names, failed)
    for name, reason in list(failed.items())[:SHOWN]:
        echo(f'{name}: {reason}')
    if len(failed) > SHOWN:
        echo(f'… and {len(failed) - SHOWN:,} more, in {folder.manifest}')
    echo(f'{len(names):,} videos: {done:,} done, {len(failed):,} failed; see {folder.manifest}')
    if broken:
        how = 'float16' if args.half else args.speed
        message = about_scores(broken, len(names), how, 'features')
        echo(f'\nerror: {message}', file=sys.stderr)
        return FAILED
    return INCOMPLETE if failed else DONE


def main(argv: list[str] | None = None) -> int:
    """Do the job; return the exit code."""
    args = parse_args(argv)
    codes: list[int] = []
    return run_tool(lambda: codes.append(extract(args)), args.debug) or codes[0]


if __name__ == '__main__':
    sys.exit(main())
