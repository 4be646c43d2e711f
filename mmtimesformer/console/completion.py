"""Shell completion: write the script of bash, zsh or fish from the parsers of all tools.

The script holds the names of tools, options, choices and shipped configs, so that a shell completes
without starting Python. It is written once, by ``mmtimesformer completion bash``, which imports all
tools (a few seconds).
"""

import argparse
import contextlib
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import mmtimesformer
from mmtimesformer.console.tools import (
    COMPLETION,
    COMPLETION_SUMMARY,
    TOOLS,
    Tool,
    file_of,
    summary_of,
)
from mmtimesformer.terminal import echo, echo_lines

SHELLS = ('bash', 'zsh', 'fish')
PLACES = {
    'bash': '~/.local/share/bash-completion/completions/mmtimesformer',
    'zsh': '~/.mmtimesformer.zsh',
    'fish': '~/.config/fish/completions/mmtimesformer.fish',
}
HELP = '\n'.join(
    [
        f'usage: mmtimesformer {COMPLETION} {{{",".join(SHELLS)}}}',
        '',
        f'{COMPLETION_SUMMARY}.',
        '',
        'Run it again after an update of the package. bash (with the package bash-completion) and',
        'fish find the file; for zsh add to ~/.zshrc: source ~/.mmtimesformer.zsh',
        '',
        'examples:',
        *(f'  mmtimesformer {COMPLETION} {shell} > {place}' for shell, place in PLACES.items()),
        '',
        'exit codes:',
        '  0   done',
        '  2   a mistake on the command line',
    ]
)
HEADER = '# Completion of the command mmtimesformer. Written by: mmtimesformer completion'


@dataclass
class Option:
    """An option of a tool: its names, and what its values are."""

    names: list[str]
    help: str
    takes_value: bool = True
    choices: list[str] = field(default_factory=list)
    is_file: bool = False


@dataclass
class Words:
    """What can follow the name of a tool, or of a data set of ``prepare``."""

    path: str  # 'predict', or 'prepare kinetics'
    summary: str
    options: list[Option]
    choices: list[str]  # of its positional arguments
    has_subcommands: bool
    takes_config: bool


class _ParserFoundError(Exception):
    """Ends a tool when it would print its help."""


def print_script(arguments: list[str]) -> int:
    """Print the completion script of a shell; return the exit code."""
    if arguments and arguments[0] in ('-h', '--help'):
        echo_lines(HELP)
        return 0
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        given = ' '.join(arguments) or 'nothing'
        echo(f'error: give one of {", ".join(SHELLS)} ({given} was given)', file=sys.stderr)
        return 2
    echo_lines(script(arguments[0]))
    return 0


def script(shell: str) -> str:
    """Return the completion script of a shell: ``'bash'``, ``'zsh'`` or ``'fish'``."""
    mmtimesformer.register_components()
    from mmtimesformer.config.find import shipped_configs

    tools = [words for tool in TOOLS for words in words_of(tool)]
    configs = sorted(shipped_configs())
    if shell == 'fish':
        return _fish(tools, configs)
    return _zsh(tools, configs) if shell == 'zsh' else _bash(tools, configs)


def words_of(tool: Tool) -> Iterator[Words]:
    """Yield what can follow the name of a tool, then the same of each of its subcommands."""
    parser = parser_of(file_of(tool))
    yield _words(tool.name, summary_of(tool), parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield _words(f'{tool.name} {name}', below.description or '', below)


def parser_of(file: Path) -> argparse.ArgumentParser:
    """Return the parser of a tool: the one that prints its ``--help``."""
    found: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        found.append(parser)
        raise _ParserFoundError

    sys.path[:0] = [str(file.parent)]
    try:
        main = runpy.run_path(str(file), run_name='completed')['main']
        with mock.patch.object(argparse.ArgumentParser, 'print_help', stop):
            with contextlib.suppress(_ParserFoundError), contextlib.redirect_stdout(io.StringIO()):
                main(['--help'])
    finally:
        sys.path.remove(str(file.parent))
    return found[0]


def _words(path: str, summary: str, parser: argparse.ArgumentParser) -> Words:
    options, choices, takes_config, has_subcommands = [], [], False, False
    for action in parser._actions:
        if action.option_strings:
            options.append(_option(action))
        else:
            choices += [str(one) for one in action.choices or ()]
            takes_config |= action.dest in ('config', 'checkpoint')
            has_subcommands |= isinstance(action, argparse._SubParsersAction)
    return Words(path, summary, options, choices, has_subcommands, takes_config)


def _option(action: argparse.Action) -> Option:
    metavar = ''.join(action.metavar or '')
    return Option(
        names=[name for name in action.option_strings if name != '--local_rank'],
        help=' '.join((action.help or '').split()) if action.help != argparse.SUPPRESS else '',
        takes_value=action.nargs != 0,
        choices=[str(one) for one in action.choices or ()],
        is_file=action.type in (None, Path) or '.' in metavar,
    )


def _bash(tools: list[Words], configs: list[str]) -> str:
    """Return a script for bash 3.2 and later; it starts no process."""
    names = [*(words.path for words in tools if ' ' not in words.path), COMPLETION]
    return '\n'.join(
        [
            f'{HEADER} bash',
            '_mmtimesformer() {',
            '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}',
            '    local tool=${COMP_WORDS[1]} options= words= line',
            '    local files=yes',  # whether file names are completed too
            f'    local configs={_quoted(configs)}',
            '    [ "$word" != = ] || word=',
            '    if [ "$before" = = ]; then before=${COMP_WORDS[COMP_CWORD-2]}; fi',
            '    COMPREPLY=()',
            '    if [ "$COMP_CWORD" -eq 1 ]; then',
            f'        words={_quoted([*names, "--help", "--version"])}',
            '        files=',
            '    else',
            '        case "$tool ${COMP_WORDS[2]}" in',
            *(
                f'            {shlex.quote(words.path)}) tool={shlex.quote(words.path)} ;;'
                for words in tools
                if ' ' in words.path
            ),
            '        esac',
            '        case $tool in',
            *(line for words in tools for line in _bash_tool(words)),
            f'            {COMPLETION}) words={_quoted(SHELLS)} files= ;;',
            '        esac',
            '        case "$tool $before" in',
            *(line for words in tools for line in _bash_values(words)),
            '        esac',
            '        case $word in -*) words=$options files= ;; esac',
            '    fi',
            '    while IFS= read -r line; do COMPREPLY+=("$line"); done \\',
            '        < <(compgen -W "$words" -- "$word"; [ -z "$files" ] || compgen -f -- "$word")',
            '}',
            'complete -o filenames -F _mmtimesformer mmtimesformer',
        ]
    )


def _bash_tool(words: Words) -> Iterator[str]:
    options = _quoted(name for option in words.options for name in option.names)
    values = '$configs' if words.takes_config else _quoted(words.choices)
    files = ' files=' if words.has_subcommands else ''
    yield f'            {shlex.quote(words.path)}) options={options} words={values}{files} ;;'


def _bash_values(words: Words) -> Iterator[str]:
    """Yield what follows an option that takes a value."""
    for option in words.options:
        if option.takes_value:
            pattern = '|'.join(shlex.quote(f'{words.path} {name}') for name in option.names)
            files = 'yes' if option.is_file and not option.choices else ''
            yield f'            {pattern}) words={_quoted(option.choices)} files={files} ;;'


def _zsh(tools: list[Words], configs: list[str]) -> str:
    """Return the script of bash, run by zsh's own bashcompinit."""
    return '\n'.join(
        [
            f'{HEADER} zsh',
            'autoload -Uz compinit bashcompinit',
            '(( $+functions[compdef] )) || compinit',
            'bashcompinit',
            _bash(tools, configs),
        ]
    )


def _fish(tools: list[Words], configs: list[str]) -> str:
    start = 'complete -c mmtimesformer'
    lines = [
        f'{HEADER} fish',
        f"{start} -n __fish_use_subcommand -f -l help -d 'list all tools'",
        f"{start} -n __fish_use_subcommand -f -l version -d 'version of the package'",
    ]
    for words in tools:
        tool, _, below = words.path.partition(' ')
        seen = f'__fish_seen_subcommand_from {tool}'
        if below:
            seen += f'; and __fish_seen_subcommand_from {below}'
        else:
            summary = _fish_quoted(words.summary)
            lines.append(f'{start} -n __fish_use_subcommand -f -a {tool} -d {summary}')
        condition = f'-n {_fish_quoted(seen)}'
        values = _fish_quoted(' '.join([*words.choices, *(configs if words.takes_config else ())]))
        if words.has_subcommands:
            none = f'{seen}; and not __fish_seen_subcommand_from {" ".join(words.choices)}'
            lines.append(f'{start} -n {_fish_quoted(none)} -f -a {values}')
        elif values != "''":
            lines.append(f'{start} {condition} -a {values}')
        lines += [f'{start} {condition} {_fish_option(option)}' for option in words.options]
    lines.append(
        f'{start} -n __fish_use_subcommand -f -a {COMPLETION} -d {_fish_quoted(COMPLETION_SUMMARY)}'
    )
    lines.append(
        f"{start} -n '__fish_seen_subcommand_from {COMPLETION}' -f -a '{' '.join(SHELLS)}'"
    )
    return '\n'.join(lines)


def _fish_option(option: Option) -> str:
    names = [
        f'-l {name[2:]}' if name.startswith('--') else f'-s {name[1:]}' for name in option.names
    ]
    value = []
    if option.choices:
        value = ['-x', '-a', _fish_quoted(' '.join(option.choices))]
    elif option.takes_value:
        value = ['-r' if option.is_file else '-x']
    return ' '.join([*names, *value, '-d', _fish_quoted(option.help)])


def _quoted(words: Iterable[str]) -> str:
    """Return words for ``compgen -W``, which would expand ``$`` and backquotes in them."""
    plain = [word for word in words if re.fullmatch(r'[\w.,:+/-]+', word)]
    return "'" + ' '.join(plain) + "'"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace('\\', '\\\\').replace("'", "\\'") + "'"
