"""A user of Hugging Face: load a folder, classify, train, save, upload; transformers agrees."""

import base64
import json
import re
import threading
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmtimesformer import TimeSformer
from mmtimesformer.checkpoints.download import model_address
from mmtimesformer.class_names import class_names_of
from mmtimesformer.inference import VideoClassifier
from mmtimesformer.inference.system_comparison import (
    OFFICIAL,
    PACKAGE,
    THEIRS,
    Comparison,
    compare_systems,
)
from tests.conftest import write_video

from .hub_folders import CLASSES, save_hub_folder

SCHEMES = ('divided_space_time', 'joint_space_time', 'space_only')
TWO = SCHEMES[:2]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / 'v.mp4', 60, 91 // 2 * 2, 64)


def load(folder: Path | str, **options: Any) -> VideoClassifier:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return VideoClassifier.from_pretrained(folder, device='cpu', **options)


def edit(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def logits_of(classifier: VideoClassifier, clips: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return classifier.model.cls_head(classifier.model.backbone(clips))


# -- loading -------------------------------------------------------------------------------------


@pytest.mark.parametrize('scheme', TWO)
def test_scores_are_those_of_transformers_on_the_same_frames(
    scheme: str, video: Path, tmp_path: Path
) -> None:
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    theirs = save_hub_folder(tmp_path / 'folder', scheme)
    ours = load(tmp_path / 'folder')
    assert ours.classes == CLASSES
    chosen = ours.views.choose(60, 30.0)['frame_inds']
    from mmtimesformer.datasets import Video

    frames = Video(video).frames([int(i) for i in chosen])
    processor = VideoMAEImageProcessorPil.from_pretrained(tmp_path / 'folder')
    pixels = processor(list(frames), return_tensors='pt').pixel_values
    with torch.inference_mode():
        expected = theirs(pixels).logits.softmax(-1)[0].numpy()
    assert np.abs(ours(video).all_scores - expected).max() < 1e-5


def test_what_the_files_do_not_state_is_said_once(video: Path, tmp_path: Path) -> None:
    save_hub_folder(tmp_path / 'folder')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        found = VideoClassifier.from_pretrained(tmp_path / 'folder', device='cpu')
        found(video)
        found(video)
    said = [str(one.message) for one in said if 'frame_interval' in str(one.message)]
    assert len(said) == 1
    assert '4 frames, 64 apart at 30 fps (the rule of Kinetics' in said[0]


def sampler_of(folder: Path) -> dict[str, Any]:
    return load(folder).inference_config.pipeline[1]


def test_frames_follow_from_the_data_set_or_from_the_file(tmp_path: Path) -> None:
    folder = tmp_path / 'folder'
    save_hub_folder(folder, labels=list(class_names_of('sthv2')))
    assert sampler_of(folder)['type'] == 'mmtimesformer.SegmentSampleFrames'
    assert load(folder).inference_config.model['data_preprocessor']['to_rgb'] is False
    edit(folder, 'preprocessor_config.json', frame_interval=7, channel_order='BGR')
    assert sampler_of(folder)['frame_interval'] == 7
    assert load(folder).inference_config.model['data_preprocessor']['to_rgb'] is True
    hub = tmp_path / 'models--facebook--timesformer-base-finetuned-ssv2' / 'snapshot'
    save_hub_folder(hub, labels=list(class_names_of('sthv2')))
    assert load(hub).inference_config.model['data_preprocessor']['to_rgb'] is True
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        VideoClassifier.from_pretrained(folder)
    assert not said


@pytest.mark.parametrize(
    ('file', 'values', 'message'),
    [
        ('preprocessor_config.json', {'do_flip_channel_order': True}, 'do_flip_channel_order'),
        ('preprocessor_config.json', {'crop_size': {'height': 33, 'width': 33}}, 'patches of 16'),
        ('preprocessor_config.json', {'do_center_crop': False}, 'the size of the video'),
        ('preprocessor_config.json', {'num_frames': 8}, 'num_frames=8, and its model takes 4'),
        ('config.json', {'id2label': ['a', 'b', 'c']}, 'a list in place of keys'),
        ('config.json', {'id2label': {'1': 'a', '2': 'b', '3': 'c'}}, "the key '3'"),
        ('config.json', {'id2label': {'0': 'a', '1': 'b'}}, '2 keys'),
        ('config.json', {'problem_type': 'regression'}, "problem_type='regression'"),
        ('config.json', {'hidden_act': 'relu'}, "hidden_act='relu'"),
        ('config.json', {'attention_type': 'joint_space_time'}, 'those of divided_space_time'),
        ('config.json', {'attention_type': 'divided'}, "attention_type='divided', and its weights"),
        ('config.json', {'num_attention_heads': '2'}, "num_attention_heads='2', and it must be"),
    ],
)
def test_a_value_that_would_give_wrong_scores_is_an_error(
    file: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_hub_folder(tmp_path / 'folder')
    edit(tmp_path / 'folder', file, **values)
    with pytest.raises(ValueError, match='folder') as error:
        load(tmp_path / 'folder')
    assert message in str(error.value)


def test_a_folder_that_states_no_heads_has_those_that_transformers_takes(
    video: Path, tmp_path: Path
) -> None:
    """12 at any width, where other ViTs of this width have 3."""
    from transformers import TimesformerForVideoClassification

    folder = tmp_path / 'folder'
    save_hub_folder(folder, hidden_size=192, num_attention_heads=12)
    config = json.loads((folder / 'config.json').read_text())
    del config['num_attention_heads'], config['layer_norm_eps']
    (folder / 'config.json').write_text(json.dumps(config))
    theirs = TimesformerForVideoClassification.from_pretrained(folder).eval()
    ours, clips = load(folder), torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        expected = theirs(clips.transpose(1, 2)).logits
    assert torch.allclose(logits_of(ours, clips), expected, rtol=1e-4, atol=1e-4)
    assert ours.model.backbone.blocks[0].attn.num_heads == 12


def test_a_folder_without_its_preprocessing_is_an_error(tmp_path: Path) -> None:
    save_hub_folder(tmp_path / 'folder')
    (tmp_path / 'folder' / 'preprocessor_config.json').unlink()
    with pytest.raises(ValueError, match='has no preprocessor_config.json'):
        load(tmp_path / 'folder')


def test_a_model_of_sigmoids_has_several_labels(video: Path, tmp_path: Path) -> None:
    save_hub_folder(tmp_path / 'folder', problem_type='multi_label_classification')
    ours = load(tmp_path / 'folder')
    assert ours.is_multi_label
    ours.save_pretrained(tmp_path / 'again')
    config = json.loads((tmp_path / 'again' / 'config.json').read_text())
    assert config['problem_type'] == 'multi_label_classification'
    again = load(tmp_path / 'again')
    assert again.is_multi_label
    assert np.array_equal(again(video).all_scores, ours(video).all_scores)


def test_names_are_paths_addresses_or_repositories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'owner' / 'there').mkdir(parents=True)
    assert model_address('owner/there') == 'owner/there'
    assert model_address('owner/name') == 'hf://owner/name'
    for revision in ('v1.0', 'refs/pr/1', 'refs/convert/parquet', 'feature%2Fx'):
        assert model_address(f'owner/name@{revision}') == f'hf://owner/name@{revision}'
    assert model_address('hf://owner/name') == 'hf://owner/name'
    for wrong in ('nothing', './owner/name', '../x', 'a/b/c', 'owner/name@v1/file'):
        with pytest.raises(FileNotFoundError, match='not owner/name'):
            model_address(wrong)


def test_a_folder_without_names_takes_none_of_a_public_data_set(tmp_path: Path) -> None:
    folder = tmp_path / 'timesformer-ucf101'  # of as many classes, in an order that is not known
    save_hub_folder(folder, labels=[f'LABEL_{i}' for i in range(101)])
    assert load(folder).classes is None


def test_a_converted_official_file_without_its_config_is_enough(
    video: Path, tmp_path: Path
) -> None:
    from mmtimesformer.checkpoints import read_checkpoint, save_checkpoint

    save_hub_folder(tmp_path / 'folder')
    save_checkpoint(read_checkpoint(tmp_path / 'folder'), tmp_path / 'a.pyth', 'official')
    state = {'model_state': torch.load(tmp_path / 'a.pyth')['model_state']}
    torch.save(state, tmp_path / 'bare.pyth')
    weights = read_checkpoint(tmp_path / 'bare.pyth', num_heads=2)
    save_checkpoint(weights, tmp_path / 'converted', 'huggingface')
    with pytest.warns(UserWarning, match='has no frame_interval'):
        ours = VideoClassifier.from_pretrained(tmp_path / 'converted', device='cpu')
    assert ours.inference_config.protocol == 'official'
    assert ours.clips(video).shape == (3, 3, 4, 32, 32)


# -- the backbone --------------------------------------------------------------------------------


@pytest.mark.parametrize('scheme', SCHEMES)
def test_the_backbone_alone_is_loaded_with_its_arguments(scheme: str, tmp_path: Path) -> None:
    theirs = save_hub_folder(tmp_path / 'folder', scheme)
    ours = TimeSformer.from_pretrained(tmp_path / 'folder')
    assert (ours.attention_type, ours.patch_size, ours.training) == (scheme, 16, False)
    video = torch.randn(2, 3, 4, 32, 32)
    with torch.inference_mode():
        if scheme != 'space_only':
            expected = theirs.timesformer(video.transpose(1, 2)).last_hidden_state[:, 0]
            torch.testing.assert_close(ours(video), expected, rtol=1e-5, atol=1e-5)
        changed = TimeSformer.from_pretrained(tmp_path / 'folder', num_frames=6, img_size=64)
        assert changed.grid == (4, 4)
        assert changed(torch.randn(1, 3, 6, 64, 64)).isfinite().all()


# -- the journey -----------------------------------------------------------------------------------


def train_a_few_steps(classifier: VideoClassifier, video: Path) -> None:
    """Train all weights on one video, so that each differs from those that were loaded."""
    model = classifier.model.train()
    clips = classifier.clips(video)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for label in (1, 0, 1):
        loss = torch.nn.functional.cross_entropy(
            model.cls_head(model.backbone(clips)), torch.tensor([label])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()


@pytest.mark.parametrize('scheme', TWO)
def test_load_train_save_and_transformers_gives_the_same_logits(
    scheme: str, video: Path, tmp_path: Path
) -> None:
    from transformers import TimesformerForVideoClassification

    before = save_hub_folder(tmp_path / 'folder', scheme)
    ours = load(tmp_path / 'folder')
    train_a_few_steps(ours, video)
    ours.save_pretrained(tmp_path / 'trained')
    theirs, info = TimesformerForVideoClassification.from_pretrained(
        tmp_path / 'trained', output_loading_info=True
    )
    assert not info['missing_keys']
    assert not info['unexpected_keys']
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    old, new = before.state_dict(), theirs.state_dict()
    assert sum(not torch.equal(old[name], new[name]) for name in old) > len(old) // 2
    clips = ours.clips(video)
    with torch.inference_mode():
        logits = theirs.eval()(clips.transpose(1, 2)).logits
    torch.testing.assert_close(logits, logits_of(ours, clips), rtol=1e-5, atol=1e-5)
    again = load(tmp_path / 'trained')
    assert np.array_equal(again(video).all_scores, ours(video).all_scores)
    assert again.classes == CLASSES


@pytest.mark.parametrize('scheme', SCHEMES)
def test_weights_come_back_bit_for_bit(scheme: str, tmp_path: Path) -> None:
    from transformers import TimesformerForVideoClassification

    theirs = save_hub_folder(tmp_path / 'folder', scheme)
    load(tmp_path / 'folder').save_pretrained(tmp_path / 'again')
    after = TimesformerForVideoClassification.from_pretrained(tmp_path / 'again').state_dict()
    before = theirs.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_transformers_gives_a_row_a_frame_for_space_only(video: Path, tmp_path: Path) -> None:
    """A defect of transformers 5.23, pinned so that its repair is noticed: one video, 4 rows.

    The official computation averages the class tokens of the frames before the last norm; it is
    written out here from transformers' own parts.
    """
    theirs = save_hub_folder(tmp_path / 'folder', 'space_only')
    ours = load(tmp_path / 'folder')
    clips = ours.clips(video)
    pixels = clips.transpose(1, 2)
    with torch.inference_mode():
        assert theirs(pixels).logits.shape == (4, 3)  # if this is (1, 3): repaired upstream
        tokens = theirs.timesformer.embeddings(pixels)
        for layer in theirs.timesformer.encoder.layer:
            out = layer(tokens)
            tokens = out[0] if isinstance(out, tuple) else out
        mean = tokens[:, 0].reshape(1, 4, -1).mean(1)
        expected = theirs.classifier(theirs.timesformer.layernorm(mean))
    torch.testing.assert_close(logits_of(ours, clips), expected, rtol=1e-5, atol=1e-5)


def test_transformers_reads_preprocessing_and_names_of_a_saved_folder(
    video: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    save_hub_folder(tmp_path / 'folder')
    ours = load(tmp_path / 'folder')
    ours.save_pretrained(tmp_path / 'again')
    old, new = (
        pipeline('video-classification', model=str(tmp_path / name), device='cpu')
        for name in ('folder', 'again')
    )
    assert new(str(video)) == old(str(video))
    for key in ('size', 'crop_size', 'resample', 'image_mean', 'image_std', 'rescale_factor'):
        assert getattr(new.image_processor, key) == getattr(old.image_processor, key), key


def test_frames_that_are_not_resized_stay_so_in_a_saved_folder(video: Path, tmp_path: Path) -> None:
    """Transformers' default is to resize, so that the file must state the contrary."""
    save_hub_folder(tmp_path / 'folder')
    edit(tmp_path / 'folder', 'preprocessor_config.json', do_resize=False)
    load(tmp_path / 'folder').save_pretrained(tmp_path / 'again')
    values = json.loads((tmp_path / 'again' / 'preprocessor_config.json').read_text())
    assert values['do_resize'] is False
    with pytest.raises(ValueError, match='name of the folder is empty'):
        load(tmp_path / 'again').save_pretrained('')


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        ({'scale': (-1, 40), 'interpolation': 'bicubic'}, ({'shortest_edge': 40}, 3)),
        ({'scale': (48, 32), 'keep_ratio': False}, ({'height': 32, 'width': 48}, 2)),
        ({'scale': 32, 'keep_ratio': False}, ({'height': 32, 'width': 32}, 2)),
    ],
)
def test_a_resize_of_mmaction2_is_stated_for_transformers(
    step: dict[str, Any], expected: tuple[dict[str, int], int], tmp_path: Path
) -> None:
    save_hub_folder(tmp_path / 'folder')
    ours = load(tmp_path / 'folder')
    steps = ours.inference_config.pipeline
    kinds = [one['type'].rpartition('.')[2] for one in steps]
    steps[kinds.index('ProcessorResize')] = {'type': 'Resize', **step}
    ours.save_pretrained(tmp_path / 'again')
    values = json.loads((tmp_path / 'again' / 'preprocessor_config.json').read_text())
    assert (values['size'], values['resample']) == expected


def test_a_report_of_saving_is_one_line_in_a_notebook(tmp_path: Path) -> None:
    save_hub_folder(tmp_path / 'folder')
    saved = load(tmp_path / 'folder').save_pretrained(tmp_path / 'again')
    assert repr(saved) == ("<LoadReport mmtimesformer -> Hugging Face's TimeSformer: 49 renamed>")


def test_preprocessing_that_was_edited_after_saving_is_used(video: Path, tmp_path: Path) -> None:
    save_hub_folder(tmp_path / 'folder')
    load(tmp_path / 'folder').save_pretrained(tmp_path / 'again')
    edit(tmp_path / 'again', 'preprocessor_config.json', image_mean=[0.1] * 3, resample=3)
    edited = load(tmp_path / 'again').inference_config
    assert edited.model['data_preprocessor']['mean'] == pytest.approx([25.5] * 3)
    assert [step.get('resample') for step in edited.pipeline if 'resample' in step] == ['bicubic']
    edit(tmp_path / 'again', 'config.json', id2label={'0': 'x', '1': 'y', '2': 'z'})
    assert load(tmp_path / 'again').classes == ['x', 'y', 'z']


def test_a_trained_model_of_any_protocol_comes_back_from_a_folder(
    config: Path, checkpoint: Path, tiny_videos: Path, tmp_path: Path
) -> None:
    """Three crops, MMAction2's frames: the folder is tested here as the checkpoint was."""
    trained = VideoClassifier(config, checkpoint, device='cpu')
    trained.save_pretrained(tmp_path / 'folder')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        again = VideoClassifier.from_pretrained(tmp_path / 'folder', device='cpu')
    video = tiny_videos / '0.mp4'
    assert again.clips(video).shape == (3, 3, 4, 32, 32)
    assert np.array_equal(again(video).all_scores, trained(video).all_scores)
    values = json.loads((tmp_path / 'folder' / 'preprocessor_config.json').read_text())
    assert values['image_std'] == [round(64 / 255, 12)] * 3
    assert (values['size'], values['frame_interval']) == ({'shortest_edge': 32}, 2)


def test_saving_over_the_checkpoint_or_beside_contradicting_files_is_refused(
    tmp_path: Path,
) -> None:
    save_hub_folder(tmp_path / 'folder')
    ours = load(tmp_path / 'folder')
    with pytest.raises(ValueError, match='is the checkpoint that was loaded'):
        ours.save_pretrained(tmp_path / 'folder')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other' / 'video_preprocessor_config.json').write_text('{}')
    with pytest.raises(ValueError, match='would contradict the new files'):
        ours.save_pretrained(tmp_path / 'other')
    with pytest.raises(ValueError, match='scores of a model card need their source'):
        ours.save_pretrained(tmp_path / 'new', scores={'top-1 accuracy': 77.9})


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'scores': '94'}, "scores='94' of a model card is not a dict of metric"),
        ({'scores': [94.0]}, 'scores=a list of a model card is not a dict'),
        ({'scores': {1: 94.0}}, 'scores=a dict of a model card is not a dict of metric'),
        ({'data_set': ['ucf101']}, 'data_set=a list of a model card is not a text'),
        ({'licence': 4}, 'licence=4 of a model card is not a text'),
    ],
)
def test_an_argument_of_another_type_for_the_model_card_is_one_sentence(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_hub_folder(tmp_path / 'folder')
    ours = load(tmp_path / 'folder')
    with pytest.raises(TypeError, match=message):
        ours.save_pretrained(tmp_path / 'new', scores_source='a test', **arguments)
    with pytest.raises(TypeError, match=message):
        ours.push_to_hub('me/mine', dry_run=True, scores_source='a test', **arguments)


def test_a_block_of_your_own_is_not_saved_for_transformers(tmp_path: Path) -> None:
    from mmtimesformer.models import DividedSpaceTimeBlock

    class SpaceFirst(DividedSpaceTimeBlock):
        def forward(self, frames: torch.Tensor, t: int) -> torch.Tensor:
            frames = frames + self.attend_space(frames)
            return frames + self.attend_time(frames)

    save_hub_folder(tmp_path / 'folder')
    ours = load(tmp_path / 'folder')
    ours.model.backbone.blocks[1].__class__ = SpaceFirst
    with pytest.raises(ValueError, match=r'backbone.blocks.1 is a SpaceFirst.*of your own'):
        ours.save_pretrained(tmp_path / 'again')


# -- the preprocessing of checkpoint and config --------------------------------------------------


def test_the_preprocessing_of_the_checkpoint_wins_over_that_of_a_config(
    config: Path, video: Path, tmp_path: Path
) -> None:
    save_hub_folder(tmp_path / 'folder')
    edit(tmp_path / 'folder', 'preprocessor_config.json', frame_interval=5)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        ours = VideoClassifier(config, tmp_path / 'folder', device='cpu')
    (line,) = [str(one.message) for one in said if 'preprocessing' in str(one.message)]
    assert 'mean: the checkpoint was trained with (0.45, 0.4, 0.5), the config gives (0.5' in line
    assert 'short side: the checkpoint was trained with 40, the config gives 32' in line
    preprocessor = ours.inference_config.model['data_preprocessor']
    assert preprocessor['mean'] == pytest.approx([114.75, 102, 127.5])
    assert preprocessor['std'] == pytest.approx([57.375, 51, 76.5])
    steps = ours.inference_config.pipeline
    assert steps[1]['frame_interval'] == 5
    assert steps[3] == {
        'type': 'mmtimesformer.ProcessorResize', 'size': 40, 'resample': 'bilinear',
    }  # fmt: skip
    assert ours.clips(video).shape == (3, 3, 4, 32, 32)  # the views stay the config's
    with pytest.warns(UserWarning, match='the config gives'):
        kept = VideoClassifier(config, tmp_path / 'folder', device='cpu', preprocessing='config')
    assert kept.inference_config.model['data_preprocessor']['mean'] == [127.5] * 3


def test_the_config_is_a_way_out_of_a_processor_that_is_not_known(
    config: Path, video: Path, tmp_path: Path
) -> None:
    save_hub_folder(tmp_path / 'folder')
    edit(tmp_path / 'folder', 'preprocessor_config.json', do_flip_channel_order=True)
    with pytest.raises(ValueError, match='do_flip_channel_order'):
        VideoClassifier(config, tmp_path / 'folder', device='cpu')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        kept = VideoClassifier(config, tmp_path / 'folder', device='cpu', preprocessing='config')
    assert kept(video).top
    with pytest.raises(ValueError, match="preprocessing='x' is not known"):
        VideoClassifier(config, tmp_path / 'folder', device='cpu', preprocessing='x')


# -- the model card and the upload ---------------------------------------------------------------


def test_the_model_card_states_data_set_protocol_scores_and_licence(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    save_hub_folder(tmp_path / 'folder')
    ours = load(tmp_path / 'folder')
    ours.save_pretrained(
        tmp_path / 'again', data_set='ucf101', scores={'top-1 accuracy': 77.9},
        scores_source='tools/test.py on UCF101 split 1', licence='cc-by-nc-4.0',
        base_model='facebook/timesformer-base-finetuned-k400',
    )  # fmt: skip
    card = ModelCard.load(tmp_path / 'again' / 'README.md')
    assert (card.data.license, card.data.datasets) == ('cc-by-nc-4.0', ['ucf101'])
    assert card.data.pipeline_tag == 'video-classification'
    (result,) = card.data.eval_results
    assert (result.metric_value, result.dataset_name) == (77.9, 'UCF101')
    for words in (
        'mean of softmax',
        'Source: tools/test.py on UCF101',
        'mean 0.45, 0.4, 0.5',
        '64 apart',
    ):
        assert words in card.text, words
    (tmp_path / 'again' / 'README.md').write_text('my own text')
    ours.save_pretrained(tmp_path / 'again')
    assert (tmp_path / 'again' / 'README.md').read_text() == 'my own text'


class Hub(BaseHTTPRequestHandler):
    """The four requests of an upload, and the two of a download, as the hub answers them."""

    files: dict[str, bytes] = {}
    calls: list[tuple[str, Any]] = []

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        if self.headers.get('Transfer-Encoding') == 'chunked':
            body = b''
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        Hub.calls.append((self.path, body))
        if 'preupload' in self.path:
            names = [one['path'] for one in json.loads(body)['files']]
            modes = [
                {'path': name, 'uploadMode': 'regular', 'shouldIgnore': False, 'oid': None}
                for name in names
            ]
            self._answer({'files': modes})
        elif '/commit/' in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry['key'] == 'file':
                    value = entry['value']
                    Hub.files[value['path']] = base64.b64decode(value['content'])
            url = f'http://{self.headers["Host"]}/me/mine/commit/abc'
            self._answer({'commitUrl': url, 'commitOid': 'abc', 'success': True})
        elif '/branch/' in self.path:
            self._answer({})
        elif self.path.endswith('/yaml'):
            self._answer({'errors': [], 'warnings': []})
        else:
            self._answer({'url': f'http://{self.headers["Host"]}/me/mine', 'name': 'me/mine'})

    def do_GET(self) -> None:
        self._answer({'id': 'me/mine', 'siblings': []})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import HfApi, constants

    Hub.files, Hub.calls = {}, []
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(constants, 'ENDPOINT', address)
    import functools

    import huggingface_hub

    made = functools.partial(HfApi, endpoint=address, token='hf_test')
    monkeypatch.setattr(huggingface_hub, 'HfApi', made)
    yield Hub
    server.shutdown()
    server.server_close()


def test_an_upload_sends_the_files_of_save_pretrained(
    hub: type[Hub], video: Path, tmp_path: Path
) -> None:
    save_hub_folder(tmp_path / 'folder')
    ours = load(tmp_path / 'folder')
    done = ours.push_to_hub('me/mine', private=True, revision='v1', data_set='ucf101')
    assert done.url is not None
    assert done.url.endswith('/me/mine/commit/abc')
    assert {*hub.files} == {
        'README.md', 'config.json', 'model.safetensors', 'preprocessor_config.json',
    }  # fmt: skip
    paths = [path for path, _ in hub.calls]
    assert '/api/models/me/mine/branch/v1' in paths
    assert any(path.startswith('/api/models/me/mine/commit/v1') for path in paths)
    (created,) = [json.loads(body) for path, body in hub.calls if path == '/api/repos/create']
    assert created.get('private') is True or created.get('visibility') == 'private'
    (tmp_path / 'down').mkdir()
    for name, content in hub.files.items():
        (tmp_path / 'down' / name).write_bytes(content)
    again = load(tmp_path / 'down')
    assert np.array_equal(again(video).all_scores, ours(video).all_scores)


def test_a_dry_run_of_an_upload_sends_nothing(hub: type[Hub], tmp_path: Path) -> None:
    save_hub_folder(tmp_path / 'folder')
    plan = load(tmp_path / 'folder').push_to_hub('me/mine', dry_run=True)
    assert hub.calls == []
    assert plan.url is None
    assert 'model.safetensors' in plan.files
    assert 'dry run, nothing is uploaded' in str(plan)


def test_an_upload_that_fails_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import functools

    import huggingface_hub

    save_hub_folder(tmp_path / 'folder')
    made = functools.partial(huggingface_hub.HfApi, endpoint='http://127.0.0.1:9')
    monkeypatch.setattr(huggingface_hub, 'HfApi', made)
    with pytest.raises(ValueError, match='cannot upload to me/mine'):
        load(tmp_path / 'folder').push_to_hub('me/mine')
    with pytest.raises(ValueError, match='is not owner/name'):
        load(tmp_path / 'folder').push_to_hub('mine')


# -- three systems -------------------------------------------------------------------------------


@pytest.mark.parametrize('scheme', ['divided_space_time', 'space_only'])
def test_the_comparison_names_frames_crops_and_logits_of_each_system(
    scheme: str, video: Path, tmp_path: Path
) -> None:
    theirs = save_hub_folder(tmp_path / 'folder', scheme)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = compare_systems(video, tmp_path / 'folder', 'cpu')
    ours, pipeline, official = found.systems
    assert [one.name for one in found.systems] == [PACKAGE, THEIRS, OFFICIAL]
    assert ours.frames == official.frames
    assert pipeline.frames == [0, 1, 2, 3]  # the first frames, whatever the video
    assert (ours.crop, official.views) == ('centre 32 x 32', 3)
    assert official.mean == [0.45] * 3
    assert ours.mean == pipeline.mean == [0.45, 0.4, 0.5]
    scores = load(tmp_path / 'folder')(video).all_scores
    assert np.abs(torch.tensor(ours.logits).softmax(0).numpy() - scores).max() < 1e-6
    text = '\n'.join(found.differences)
    assert "transformers' pipeline, frames: 0 1 2 3, here" in text
    assert 'official protocol, crop' in text
    assert ('returns 4 rows of logits' in text) == (scheme == 'space_only')
    from transformers import pipeline as build

    best = build('video-classification', model=str(tmp_path / 'folder'), device='cpu')(str(video))
    assert best[0]['label'] == CLASSES[int(np.argmax(pipeline.logits))]
    assert theirs.config.num_frames == 4


def compared(video: Path, folder: Path) -> Comparison:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return compare_systems(video, folder, 'cpu')


@pytest.mark.parametrize(
    ('values', 'mean', 'std'),
    [
        (
            {'do_rescale': False},
            [0.45 / 255, 0.4 / 255, 0.5 / 255],
            [0.225 / 255, 0.2 / 255, 0.3 / 255],
        ),
        ({'rescale_factor': 2 / 255}, [0.225, 0.2, 0.25], [0.1125, 0.1, 0.15]),
        ({'do_normalize': False}, [0.0] * 3, [1.0] * 3),
        ({'do_normalize': False, 'rescale_factor': 1 / 51}, [0.0] * 3, [0.2] * 3),
    ],
)
def test_mean_and_std_are_compared_as_the_processor_applies_them(
    values: dict[str, Any], mean: list[float], std: list[float], video: Path, tmp_path: Path
) -> None:
    save_hub_folder(tmp_path / 'folder')
    edit(tmp_path / 'folder', 'preprocessor_config.json', **values)
    found = compared(video, tmp_path / 'folder')
    for system in found.systems[:2]:
        assert system.mean == pytest.approx(mean, abs=1e-6), system.name
        assert system.std == pytest.approx(std, abs=1e-6), system.name
    assert found.systems[1].frames == [0, 1, 2, 3]  # found by their pixels
    assert not [
        x for x in found.differences if re.match('transformers.*(mean|std|resize|crop):', x)
    ]


def test_a_resize_that_is_off_is_no_difference(tmp_path: Path) -> None:
    video = write_video(tmp_path / 'v.mp4', 20, 48, 48)
    save_hub_folder(tmp_path / 'folder')
    edit(tmp_path / 'folder', 'preprocessor_config.json', do_resize=False)
    found = compared(video, tmp_path / 'folder')
    assert [one.resize for one in found.systems[:2]] == ['none', 'none']


def test_on_a_video_shorter_than_the_clip_the_third_column_has_the_reason(tmp_path: Path) -> None:
    video = write_video(tmp_path / 'short.mp4', 3, 64, 64)
    save_hub_folder(tmp_path / 'folder')
    found = compared(video, tmp_path / 'folder')
    ours, theirs, official = found.systems
    assert len(ours.logits) == len(official.logits) == 3
    assert theirs.logits == []
    assert theirs.error is not None
    note = 'its clip has 3 of 4 frames, since the video is shorter than a clip'
    assert theirs.error.startswith(f'fails ({note}; RuntimeError: ')
    rows = {row[0]: row[1:] for row in found.rows()}
    assert rows['frames'][1] == theirs.error
    assert rows['crop'] == ['centre 32 x 32', '–', official.crop]
    assert rows['best class'][1] == '–'
    assert rows['best class'][0] in CLASSES
    assert f"transformers' pipeline: {theirs.error}" in found.differences


def test_a_short_clip_that_transformers_classifies_is_noted(tmp_path: Path) -> None:
    video = write_video(tmp_path / 'short.mp4', 3, 64, 64)
    save_hub_folder(tmp_path / 'folder', 'joint_space_time')
    found = compared(video, tmp_path / 'folder')
    theirs = found.systems[1]
    assert theirs.frames == [0, 1, 2]
    assert len(theirs.logits) == 3
    assert theirs.notes == ['its clip has 3 of 4 frames, since the video is shorter than a clip']


def test_weights_of_half_precision_are_compared_too(video: Path, tmp_path: Path) -> None:
    save_hub_folder(tmp_path / 'folder').half().save_pretrained(tmp_path / 'folder')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = compare_systems(video, tmp_path / 'folder', 'cpu')
    assert found.systems[1].frames == [0, 1, 2, 3]


@pytest.mark.slow  # a process of its own, because HF_ENDPOINT is read at import
def test_hf_endpoint_names_the_server_of_an_upload(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    save_hub_folder(tmp_path / 'folder')
    Hub.files, Hub.calls = {}, []
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        'from mmtimesformer import VideoClassifier\n'
        "model = VideoClassifier.from_pretrained('folder', device='cpu')\n"
        "print(model.push_to_hub('me/mine'))\n"
    )
    environment = {
        **os.environ,
        'HF_ENDPOINT': f'http://127.0.0.1:{server.server_port}',
        'HF_TOKEN': 'hf_test',
        'PYTHONPATH': str(Path(__file__).parents[2]),
    }
    try:
        done = subprocess.run(
            [sys.executable, '-c', code], cwd=tmp_path, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert 'uploaded to me/mine, revision main' in done.stdout
    assert 'model.safetensors' in Hub.files
