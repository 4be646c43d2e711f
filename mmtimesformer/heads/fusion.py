"""Names of the ways to fuse the scores of several views of a video."""

#: How the scores of a video's views are fused, by the head's ``average_clips``.
FUSIONS: dict[str | None, str] = {
    'prob': 'mean of softmax',
    'sigmoid': 'mean of sigmoid',
    'score': 'mean of logits',
    'sum': 'sum of logits',
    'number': 'mean of numbers',  # of regression
    None: 'views kept apart',
}
