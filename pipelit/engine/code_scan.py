"""Looks for patterns that code written by a model should not have: defence in depth.

The sandbox is what keeps code from doing harm; this tells the model sooner. It reads text, not
syntax, in time linear in the text. Contract: node-types.md §7.6.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

Language: TypeAlias = Literal["python", "bash"]

_PYTHON = (
    re.compile(
        r"(?:^|[;:])[ \t]*(?P<found>(?:from|import)[ \t][^\n;:#]*?\b(?:os|subprocess|shutil)\b)",
        re.MULTILINE,
    ),
    re.compile(r"(?<![\w.])(?P<found>(?:__import__|eval|exec|compile)\s*\()"),
    re.compile(
        r"(?<!\w)(?P<found>open\s*\(\s*[A-Za-z]{0,2}[\"']{1,3}/(?:etc|proc|sys|dev)(?![\w.-]))"
    ),
)
_WRITES = re.compile(
    r"(?P<found>>[>|&]?\s*[\"']?/(?:etc(?![\w.-])|dev(?![\w.-])(?!/null(?![\w/.-]))))"
)
_MAKES_FILE_SYSTEM = re.compile(r"(?<![\w.-])(?P<found>mkfs\.)")
_BASH = (_WRITES, _MAKES_FILE_SYSTEM)

_PIPELINE_END = re.compile(r"[\n;()`]|&&|\|\||&(?!>)(?<!>&)")
_WHOLE = frozenset(
    {"/", "/*", "~", "~/", "~/*"}
    | {f"{h}{t}" for h in ("$HOME", "${HOME}") for t in ("", "/", "/*")}
)
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_PREFIXES = frozenset({"sudo", "env", "exec", "command", "nohup"})
_WRITERS = frozenset({"tee", "cp", "mv", "install", "ln"})


def find_forbidden(language: Language, code: str) -> str | None:
    """Return the first forbidden pattern found in *code*, as it is told to the model."""
    for pattern in _PATTERNS[language]:
        found = pattern.search(code)
        if found is not None:
            return " ".join(found["found"].split())
    return _find_command(code) if language == "bash" else None


_PATTERNS: Mapping[Language, Sequence[re.Pattern[str]]] = {"python": _PYTHON, "bash": _BASH}


def _find_command(script: str) -> str | None:
    for stages in _pipelines(script):
        downloads = False
        for words in stages:
            found = _judge(words)
            if found is None and downloads and _program(words) in _SHELLS:
                found = "curl | sh"
            if found is not None:
                return found
            downloads = downloads or not {"curl", "wget"}.isdisjoint(words)
    return None


def _pipelines(script: str) -> Iterator[list[list[str]]]:
    """Cut a script into pipelines of commands of words; quotes do not count."""
    plain = script.replace("\\\n", " ").replace('"', "").replace("'", "")
    for pipeline in _PIPELINE_END.split(plain):
        yield [stage.split() for stage in pipeline.split("|")]


def _judge(words: Sequence[str]) -> str | None:
    """Return the pattern one command matches."""
    known = set(words)
    if "rm" in known and _is_forced(words) and known & _WHOLE:
        return f"rm -rf {min(known & _WHOLE)}"
    if "dd" in known and any(word.startswith("of=/dev/") for word in words):
        return "dd of=/dev/"
    if "chmod" in known and known & {"777", "0777"}:
        return "chmod 777"
    program = _program(words)
    if program in _WRITERS and _is_guarded(words[-1]):
        return f"{program} {words[-1]}"
    return None


def _is_forced(words: Sequence[str]) -> bool:
    options = [word for word in words if word.startswith("-")]
    short = "".join(word for word in options if not word.startswith("--")).lower()
    recursive = "r" in short or "--recursive" in options
    return recursive and ("f" in short or "--force" in options)


def _is_guarded(path: str) -> bool:
    return path.startswith(("/etc/", "/dev/")) and path != "/dev/null"


def _program(words: Sequence[str]) -> str:
    """Return the name of the program a command runs."""
    for word in words:
        if word not in _PREFIXES and not word.startswith("-") and "=" not in word:
            return word.rsplit("/", 1)[-1]
    return ""
