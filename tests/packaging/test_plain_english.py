"""No word of the first version's private vocabulary in code, comments, messages, pages and docs.

Two lists: words that no text and no name may use, and names that were replaced by the field's. A
failing test lists ``file:line: word``. Write what the thing is or does instead (see the table in
CONTRIBUTING.md's style): *returns, logs, metadata, error message, load report, resume, skip*.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = [path for path in sorted((ROOT / 'mmtimesformer').iterdir()) if path.is_dir()]
PLACES = [
    *(f'mmtimesformer/{path.name}' for path in ROOMS if path.name != '__pycache__'),
    'mmtimesformer/*.py',
    'tools',
    'configs',
    'docs',
    'README.md',
    'README_zh-CN.md',
    'CONTRIBUTING.md',
    'CODE_OF_CONDUCT.md',
    'RELEASING.md',
    'SECURITY.md',
    '.github/*/*.yml',
    '.github/*.md',
    'requirements',
    'setup.py',
]
ENDINGS = ('.py', '.md', '.html', '.jinja', '.sh', '.yml')

# In text of any kind, and as a part of any name (`tell_torchrun`, `LayerLooks`).
WORDS = {
    'told', 'tells', 'tell', 'said', 'says', 'anew', 'heed', 'lent', 'lend', 'kin', 'forgive',
    'forgives', 'forgiving', 'beside', 'facts', 'spell', 'shares',
}  # fmt: skip
# In names alone: as words of a text they may mean what they mean everywhere.
NAME_WORDS = {'letter', 'letters', 'account'}
PHRASES = (
    'goes on', 'go on', 'went on', 'no number', 'whole or not', 'letter to', 'spoke for',
    'an account of', 'load account', 'account of every key', 'born deaf', 'is lent',
)  # fmt: skip
# A folder's ending and a checkpoint's key, which files have.
ALLOWED = re.compile(r"""\.shares\b|(['"`])shares\1""")

# Names that were replaced, as they stood: `from_main` is `broadcast_from_rank0` now.
RENAMED = {
    'Account', 'Agreement', 'Answers', 'BadVideos', 'EndOfRun', 'EnduringLoader', 'ExactEpochLoop',
    'FitCheckpoint', 'Fitted', 'Fold', 'KeepPosition', 'KeepViewScores', 'LETTERS', 'LayerLooks',
    'Look', 'NameProtocol', 'OURS', 'Outcome', 'Part', 'PredictionPictures', 'Recipe',
    'ReplaceLostWorkers', 'SafeCheckpointHook', 'SaveSharded', 'ShardedModel', 'ShareOut', 'Sight',
    'SkipNonFiniteSteps', 'ThriftyReader', 'TwinSampler', 'WatchedBatches', 'WorkerLostError',
    '_runs_into', 'account', 'anywhere', 'born_deaf', 'class_token', 'damage_of', 'end_with_parent',
    'everywhere', 'failing_together', 'fit_checkpoint', 'fresh', 'from_main', 'go_on_from',
    'goes_on', 'has_shares', 'heat', 'is_watched', 'letter', 'letter_of', 'max_worker_losses',
    'newest_whole_checkpoint', 'position_at', 'put_together', 'reunite', 'run_job', 'share_like',
    'sweep_shares', 'upright', 'with_shares',
}  # fmt: skip
# The same, where the name is an ordinary word: only what is defined or called by itself.
FUNCTIONS = {'see', 'spell', 'translate', 'told', 'said', 'facts', 'laws'}
# Methods of these classes: the words are fine in other places.
METHODS = {
    'SelfAttention': {'look', 'project', 'weights', 'first'},
    'TimeSformer': {'run', 'class_token'},
}

WORD = re.compile(rf'\b({"|".join(sorted(WORDS))})\b', re.IGNORECASE)
PHRASE = re.compile('|'.join(re.escape(phrase) for phrase in PHRASES), re.IGNORECASE)
IN_NAMES = re.compile(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+')
CODE = re.compile(r'`+([^`]+)`+')
Hit = tuple[int, str]


def in_text(text: str, line: int = 1) -> Iterator[Hit]:
    """Give the words and phrases in prose; a phrase may be broken over two lines."""
    text = ALLOWED.sub(lambda match: ' ' * len(match[0]), text)
    spaced = re.sub(r'\s', ' ', text)
    for pattern in (WORD, PHRASE):
        for match in pattern.finditer(spaced):
            yield line + text.count('\n', 0, match.start()), match[0]
    flat = re.sub(r'[\n#]\s*(?:[#\'">]\s*)*', ' ', text)  # of comments and literals in a row
    if len(PHRASE.findall(flat)) > len(PHRASE.findall(spaced)):
        yield line, PHRASE.findall(flat)[-1]


def in_name(name: str) -> str | None:
    """Return what is wrong with a name, or ``None``."""
    if name in RENAMED:
        return name
    words = {word.lower() for word in IN_NAMES.findall(name)}
    return next(iter(sorted(words & (WORDS | NAME_WORDS))), None) and name


def in_code(text: str) -> Iterator[Hit]:
    """Give the hits of a Python file: names, comments, strings; each line is read once."""
    before = ''
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line = token.start[0]
        if token.type == tokenize.NAME:
            if before == '.' and token.string == 'tell':  # of Python's files
                pass
            elif wrong := in_name(token.string):
                yield line, wrong
            elif before != '.' and token.string in FUNCTIONS:
                yield line, token.string
        elif token.type == tokenize.COMMENT or 'STRING' in tokenize.tok_name[token.type]:
            yield from in_text(token.string, line)
            for code in CODE.findall(token.string):
                yield from ((line, name) for name in re.findall(r'\w+', code) if name in RENAMED)
        before = token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and node.name in METHODS:
            for part in node.body:
                if getattr(part, 'name', '') in METHODS[node.name]:
                    yield part.lineno, f'{node.name}.{part.name}'


def in_document(text: str) -> Iterator[Hit]:
    """Give the hits of a page, a script or a document: its prose, and names in its code."""
    yield from in_text(text)
    for number, line in enumerate(text.splitlines(), 1):
        for code in CODE.findall(line):
            for name in re.findall(r'\w+', code):
                if name in RENAMED:
                    yield number, name


def hits_of(file: Path) -> list[str]:
    text = file.read_text()
    found = in_code(text) if file.suffix == '.py' else in_document(text)
    return [f'{file.relative_to(ROOT)}:{line}: {word}' for line, word in sorted(set(found))]


def files_of(place: str) -> list[Path]:
    if '*' in place:
        return sorted(ROOT.glob(place))
    path = ROOT / place
    files = sorted(path.rglob('*')) if path.is_dir() else [path]
    return [file for file in files if file.is_file() and file.suffix in ENDINGS]


@pytest.mark.parametrize('place', PLACES)
def test_no_text_and_no_name_uses_a_word_of_the_list(place: str) -> None:
    files = files_of(place)
    assert files
    hits = [hit for file in files for hit in hits_of(file)]
    assert not hits, f'{len(hits)} words:\n' + '\n'.join(hits)


@pytest.mark.parametrize(
    ('code', 'word'),
    [
        ('"""What is told of a video."""\n', 'told'),
        ('x = 1  # made anew\n', 'anew'),
        ("raise ValueError(f'{name} says so')\n", 'says'),
        ("parser.add_argument('--x', help='goes on')\n", 'goes on'),
        ('# a training that goes\n', None),
        ('"""A training goes\n    on."""\n', 'goes on'),
        ('def tell_torchrun(code): ...\n', 'tell_torchrun'),
        ('def f(letter): ...\n', 'letter'),
        ('size = file.tell()\n', None),
        ('class LayerLooks: ...\n', 'LayerLooks'),
        ('from_main(1)\n', 'from_main'),
        ('x = told\n', 'told'),
        ('see(1)\n', 'see'),
        ('self.see(1)\n', None),
        ("text.translate(table); 'see the attention of two frames'\n", None),
        ('class SelfAttention:\n    def look(self): ...\n', 'SelfAttention.look'),
        ('class Camera:\n    def look(self): ...\n', None),
        ('"""By :class:`BadVideos`."""\n', 'BadVideos'),
        ("KEY = 'shares'; folder.glob('*.shares')\n", None),
        ('"""The shares of a checkpoint."""\n', 'shares'),
        ('"""Letters of shapes; an account at a store; telling; akin; besides."""\n', None),
    ],
)
def test_scanner_finds_a_word_wherever_it_stands(code: str, word: str | None) -> None:
    assert {hit for _, hit in in_code(code)} == ({word} if word else set())


def test_scanner_reads_documents_with_their_lines() -> None:
    text = "A title\n\nThe run goes on, as `EndOfRun`\nsays; `checkpoints='shares'` stays.\n"
    assert set(in_document(text)) == {(3, 'goes on'), (3, 'EndOfRun'), (4, 'says')}
