"""Folders as transformers saves them, of tiny models whose classes differ in score."""

from pathlib import Path
from typing import Any

import torch

CLASSES = ['left', 'right', 'up']


def save_hub_folder(
    folder: Path, scheme: str = 'divided_space_time', labels: list[str] | None = None, **other: Any
) -> Any:
    """Write a folder by transformers; return its model."""
    from transformers import TimesformerConfig, TimesformerForVideoClassification
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    names = CLASSES if labels is None else labels
    config = TimesformerConfig(
        image_size=32, patch_size=16, num_hidden_layers=2, intermediate_size=96,
        attention_type=scheme,
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
        **{'num_frames': 4, 'hidden_size': 24, 'num_attention_heads': 2, **other},
    )  # fmt: skip
    torch.manual_seed(0)
    model = TimesformerForVideoClassification(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor = VideoMAEImageProcessorPil(
        size={'shortest_edge': 40}, crop_size={'height': 32, 'width': 32},
        image_mean=[0.45, 0.4, 0.5], image_std=[0.225, 0.2, 0.3],
    )  # fmt: skip
    processor.save_pretrained(folder)
    return model
