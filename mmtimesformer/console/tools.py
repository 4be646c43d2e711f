"""The tools that the package ships, by job; find a tool's file by its name.

Imports the standard library alone, so that ``mmtimesformer --help`` takes a tenth of a second, and
``mmtimesformer doctor`` runs where another package is broken.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / '.mim' / 'tools', PACKAGE.parent / 'tools')  # of a wheel; of a checkout


@dataclass(frozen=True)
class Tool:
    """A command-line tool.

    Attributes:
        name: Its name on the command line.
        group: What it is used for, one of :data:`GROUPS`.
        file: Its file in ``tools/``.
        needs_package: Whether it runs this package's code, which imports PyTorch. ``doctor`` also
            runs where PyTorch is broken.
    """

    name: str
    group: str
    file: str
    needs_package: bool = True


GROUPS = ('Train', 'Predict', 'Data', 'Checkpoints', 'Analysis', 'Environment')
TOOLS = (
    Tool('finetune', 'Train', 'finetune.py'),
    Tool('probe', 'Train', 'probe.py'),
    Tool('train', 'Train', 'train.py'),
    Tool('test', 'Train', 'test.py'),
    Tool('submit', 'Train', 'submit.py'),
    Tool('demo', 'Train', 'demo.py'),
    Tool('predict', 'Predict', 'predict.py'),
    Tool('extract_features', 'Predict', 'extract_features.py'),
    Tool('visualize_attention', 'Predict', 'visualize_attention.py'),
    Tool('demo_app', 'Predict', 'demo_app.py'),
    Tool('prepare', 'Data', 'data/prepare.py'),
    Tool('labels', 'Data', 'data/labels.py'),
    Tool('check_videos', 'Data', 'data/check_videos.py'),
    Tool('resize_videos', 'Data', 'data/resize_videos.py'),
    Tool('transcode', 'Data', 'data/transcode.py'),
    Tool('write_shards', 'Data', 'data/write_shards.py'),
    Tool('moving_shapes', 'Data', 'data/moving_shapes.py'),
    Tool('convert_checkpoint', 'Checkpoints', 'convert_checkpoint.py'),
    Tool('export', 'Checkpoints', 'export.py'),
    Tool('calibrate', 'Checkpoints', 'calibrate.py'),
    Tool('report', 'Analysis', 'analysis_tools/report.py'),
    Tool('get_flops', 'Analysis', 'analysis_tools/get_flops.py'),
    Tool('compare_precision', 'Analysis', 'analysis_tools/compare_precision.py'),
    Tool('compare_systems', 'Analysis', 'analysis_tools/compare_systems.py'),
    Tool('doctor', 'Environment', 'doctor.py', needs_package=False),
)
COMPLETION = 'completion'
COMPLETION_SUMMARY = 'Print the completion script of a shell: bash, zsh or fish'


def tools_folder() -> Path:
    """Return the folder of the tools: of the wheel, else of the checkout.

    Raises:
        FileNotFoundError: The package was copied without its tools.
    """
    for folder in FOLDERS:
        if folder.is_dir():
            return folder
    raise FileNotFoundError('the tools are not with the package; install the package again')


def file_of(tool: Tool) -> Path:
    """Return the path of a tool's file."""
    return tools_folder() / tool.file


def find_tool(name: str) -> Tool:
    """Return a tool by its name, or by its file in ``tools/`` with or without ``.py``.

    Raises:
        ValueError: There is no such tool; the message has the nearest name.
    """
    wanted = name.removesuffix('.py')
    for tool in TOOLS:
        if wanted in (tool.name, tool.file.removesuffix('.py')):
            return tool
    from mmtimesformer.cli import near_name  # needs rich

    near = near_name(wanted.rpartition('/')[2], [tool.name for tool in TOOLS] + [COMPLETION], 0.5)
    raise ValueError(f'there is no tool {name!r}{near} (mmtimesformer --help lists all)')


def summary_of(tool: Tool) -> str:
    """Return the first sentence of a tool's docstring, without executing the file."""
    text = ast.get_docstring(ast.parse(file_of(tool).read_text(encoding='utf-8'))) or ''
    return first_sentence(text)


def first_sentence(docstring: str) -> str:
    """Return the first line of a docstring without its full stop."""
    return docstring.partition('\n')[0].strip().rstrip('.')


def help_text() -> str:
    """Return the help of the command: all tools by job, one line for each."""
    width = max(len(tool.name) for tool in TOOLS)
    lines = ['usage: mmtimesformer TOOL [arguments of the tool]']
    for group in GROUPS:
        lines += ['', f'{group}:']
        lines += [
            f'  {tool.name:<{width}}  {summary_of(tool)}' for tool in TOOLS if tool.group == group
        ]
    lines += [
        f'  {COMPLETION:<{width}}  {COMPLETION_SUMMARY}',
        '',
        'mmtimesformer TOOL --help    arguments, options, examples and exit codes of a tool',
        'mmtimesformer --version      version of the package',
        '',
        'python -m mmtimesformer TOOL is the same.',
    ]
    return '\n'.join(lines)
