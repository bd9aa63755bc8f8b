"""Write completion scripts for bash, zsh and fish. Pure.

Commands, options and their values are part of the script. Names of machines, jobs and services are asked from the
program, which prints only names without any character that a shell interprets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clan_discovery.cli.words import CommandWords, Value, Word


def completion_script(shell: str, program: CommandWords, commands: Sequence[CommandWords]) -> str:
    """Return the script for `bash`, `zsh` or `fish`."""
    return "\n".join(_SHELLS[shell](program, commands)) + "\n"


_BASH_HEAD: Final = r"""# bash completion for clan-discovery

_clan_discovery_names() {
    local name
    while IFS= read -r name; do
        [[ $name == "$current"* ]] && COMPREPLY+=("$name")
    done < <("$program" "${config[@]}" completion "$1" 2>/dev/null)
}

_clan_discovery() {
    local program=$1 current=$2 previous=$3 command='' kind='' options='' operand='' index=0 word
    local -a config=()
    COMPREPLY=()
    # bash splits --option=value into three words.
    if [[ $current == = ]]; then
        current=''
    elif [[ $previous == = ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    while ((++index < COMP_CWORD)); do
        word=${COMP_WORDS[index]}
        case $word in
            -c | --config)
                [[ ${COMP_WORDS[index + 1]} == = ]] && ((++index))
                if ((++index < COMP_CWORD)); then
                    word=${COMP_WORDS[index]}
                    config=(--config "${word/#~\//$HOME/}")
                fi
                ;;
            -* | =) ;;
            *) [[ -n $command ]] || command=$word ;;
        esac
    done
    case $command:$previous in"""
_BASH_TAIL: Final = r"""    esac
    if [[ -z $kind && $current == -* ]]; then
        kind="words $options"
    fi
    case ${kind:-$operand} in
        words*)
            word=${kind:-$operand}
            mapfile -t COMPREPLY < <(compgen -W "${word#words}" -- "$current")
            ;;
        file)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            ;;
        directory)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$current")
            ;;
        machines | jobs | names) _clan_discovery_names "${kind:-$operand}" ;;
    esac
}

complete -F _clan_discovery clan-discovery"""


def _bash(program: CommandWords, commands: Sequence[CommandWords]) -> Iterator[str]:
    yield _BASH_HEAD
    for command in (program, *commands):
        for option in command.options:
            if option.value is not None:
                pattern = " | ".join(f"{command.name}:{name}" for name in option.names)
                yield f"        {pattern}) kind='{_bash_kind(option.value)}' ;;"
    yield "    esac\n    case $command in"
    names = " ".join(command.name for command in commands)
    yield f"        '') options='{_flags(program)}' operand='words {names}' ;;"
    for command in commands:
        operand = ""
        for word in command.operands:
            if word.value is not None:
                operand = _bash_kind(word.value)
        yield f"        {command.name}) options='{_flags(command)}' operand='{operand}' ;;"
    yield _BASH_TAIL


def _bash_kind(value: Value) -> str:
    """Return what completes a value: `words` and the choices, or its kind."""
    if value.choices:
        return f"words {' '.join(value.choices)}"
    return value.kind


def _flags(command: CommandWords) -> str:
    return " ".join(name for option in command.options for name in option.names)


_ZSH_HEAD: Final = r"""#compdef clan-discovery
# zsh completion for clan-discovery

_clan_discovery_names() {
    local file=${opt_args[--config]:-${opt_args[-c]:-$named_config}}
    local -a config names
    [[ -n $file ]] && config=(--config "${${(Q)file}/#\~\//$HOME/}")
    names=(${(f)"$($program $config completion $1 2>/dev/null)"})
    compadd -- $names
}

_clan_discovery() {
    local program=$words[1] named_config='' curcontext=$curcontext state line
    typeset -A opt_args
    local -a commands=("""
_ZSH_TAIL: Final = r"""            esac
            ;;
    esac
}

if [[ ${funcstack[1]} == _clan_discovery || ${funcstack[1]} == _clan-discovery ]]; then
    _clan_discovery "$@"
else
    compdef _clan_discovery clan-discovery
fi"""
# A leading space keeps _arguments from adding its own arguments.
_ZSH_COMPLETERS: Final = {
    "file": "_files",
    "directory": "_files -/",
    "machines": " _clan_discovery_names machines",
    "jobs": " _clan_discovery_names jobs",
    "names": " _clan_discovery_names names",
    "other": " ",
}


def _zsh(program: CommandWords, commands: Sequence[CommandWords]) -> Iterator[str]:
    yield _ZSH_HEAD
    for command in commands:
        yield f"        {_quoted(_zsh_text(command.name) + ':' + command.summary)}"
    yield "    )\n    _arguments -C -S -A '-*' \\"
    for option in program.options:
        yield f"        {_zsh_option(option)} \\"
    yield "        '1:command:->command' \\\n        '*::argument:->argument'"
    yield "    case $state in\n        command) _describe command commands ;;\n        argument)"
    yield "            named_config=${opt_args[--config]:-${opt_args[-c]}}\n            case $words[1] in"
    for command in commands:
        yield f"                {command.name})\n                    _arguments -S \\"
        specs = [_zsh_option(option) for option in command.options]
        specs += [_zsh_operand(number, word) for number, word in enumerate(command.operands, 1)]
        yield " \\\n".join(f"                        {spec}" for spec in specs)
        yield "                    ;;"
    yield _ZSH_TAIL


def _zsh_option(option: Word) -> str:
    """Return an option as _arguments reads it."""
    others = f"'({' '.join(option.names)})'"
    if option.repeats:
        others = "'*'"
    help_ = f"[{_zsh_text(option.summary)}]"
    if option.value is None:
        return "".join([others, _braces(option.names), _quoted(help_)])
    names = [f"{name}=" if name.startswith("--") else f"{name}+" for name in option.names]
    return "".join([others, _braces(names), _quoted(f"{help_}:{_zsh_value(option.value)}")])


def _zsh_operand(number: int, word: Word) -> str:
    place = "*" if word.repeats else str(number)
    value = "" if word.value is None else _zsh_value(word.value)
    return _quoted(f"{place}:{value}")


def _zsh_value(value: Value) -> str:
    completer = f"({' '.join(value.choices)})" if value.choices else _ZSH_COMPLETERS[value.kind]
    return f"{_zsh_text(value.name)}:{completer}"


def _zsh_text(text: str) -> str:
    for character in "\\[]:":
        text = text.replace(character, f"\\{character}")
    return text


def _braces(names: Sequence[str]) -> str:
    return f"{{{','.join(names)}}}" if len(names) > 1 else names[0]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


_FISH_HEAD: Final = r"""# fish completion for clan-discovery

function __clan_discovery_command -d 'Print the command of the command line'
    set -l words (commandline -opc)
    set -l is_value 0
    for word in $words[2..-1]
        if test $is_value = 1
            set is_value 0
            continue
        end
        switch $word
            case -c --config
                set is_value 1
            case '-*'
            case '*'
                echo -- $word
                return
        end
    end
end

function __clan_discovery_is -d 'Test for the command of the command line'
    contains -- $argv[1] (__clan_discovery_command)
end

function __clan_discovery_names -d 'Print the machines or the jobs of the config'
    set -l words (commandline -opc)
    set -l program $words[1]
    set -l config
    set -l is_value 0
    for word in $words[2..-1]
        if test $is_value = 1
            set config $word
            set is_value 0
        else if contains -- $word -c --config
            set is_value 1
        else if string match -q -- '--config=*' $word
            set config (string replace -- '--config=' '' $word)
        end
    end
    if test -n "$config"
        set config --config (string replace -r '^~/' "$HOME/" -- $config)
    end
    $program $config completion $argv[1] 2>/dev/null
end

complete -c clan-discovery -f"""
_FISH_COMPLETERS: Final = {
    "file": "-r -F",
    "directory": "-x -a '(__fish_complete_directories)'",
    "machines": "-x -a '(__clan_discovery_names machines)'",
    "jobs": "-x -a '(__clan_discovery_names jobs)'",
    "names": "-x -a '(__clan_discovery_names names)'",
    "other": "-x",
}


def _fish(program: CommandWords, commands: Sequence[CommandWords]) -> Iterator[str]:
    yield _FISH_HEAD
    yield from _fish_words("test -z (__clan_discovery_command)", program)
    for command in commands:
        condition = "test -z (__clan_discovery_command)"
        yield f"complete -c clan-discovery -n '{condition}' -a {command.name} -d {_fish_text(command.summary)}"
    for command in commands:
        yield from _fish_words(f"__clan_discovery_is {command.name}", command)


def _fish_words(condition: str, command: CommandWords) -> Iterator[str]:
    start = f"complete -c clan-discovery -n '{condition}'"
    for option in command.options:
        names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
        parts = [start, names, _fish_value(option.value), "-d", _fish_text(option.summary)]
        yield " ".join(filter(None, parts))
    for word in command.operands:
        if word.value is not None and word.value.kind != "other":
            yield f"{start} {_fish_value(word.value).replace('-x ', '').replace('-r ', '')}"


def _fish_value(value: Value | None) -> str:
    if value is None:
        return ""
    if value.choices:
        return f"-x -a {_fish_text(' '.join(value.choices))}"
    return _FISH_COMPLETERS[value.kind]


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SHELLS: Final = {"bash": _bash, "zsh": _zsh, "fish": _fish}
