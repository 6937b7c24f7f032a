"""The patterns of node-types.md §7.6, and what looks like them but is fine."""

import pytest

from pipelit.engine.code_scan import find_forbidden


@pytest.mark.parametrize(
    ("code", "pattern"),
    [
        ("import os", "import os"),
        ("x = 1\n  import json, subprocess", "import json, subprocess"),
        ("from shutil import rmtree", "from shutil"),
        ("from os.path import join", "from os"),
        ("if 1: import os", "import os"),
        ("a = 1; import  os", "import os"),
        ("__import__('os')", "__import__("),
        ("eval ('1')", "eval ("),
        ("x = exec(code)", "exec("),
        ("compile(a, b, c)", "compile("),
        ("open('/etc/passwd')", "open('/etc"),
        ('open(\n  rb"/proc/1/environ")', 'open( rb"/proc'),
        ("io.open('/sys')", "open('/sys"),
        ("open('''/dev/sda''')", "open('''/dev"),
    ],
)
def test_python_that_is_refused(code: str, pattern: str) -> None:
    """Imports, calls, paths: the pattern is told as it stands in the code."""
    assert find_forbidden("python", code) == pattern


@pytest.mark.parametrize(
    "code",
    [
        "import osmium, json",
        "import json  # not os",
        "print('import os')",
        "re.compile('a')",
        "model.eval()",
        "evaluate(1)",
        "open('/workspace/etc/x')",
        "open('/etcetera')",
        "open('data')",
        "important = 'os'",
    ],
)
def test_python_that_is_fine(code: str) -> None:
    """Names that only look alike are no patterns."""
    assert find_forbidden("python", code) is None


@pytest.mark.parametrize(
    ("script", "pattern"),
    [
        ("rm -rf /", "rm -rf /"),
        ("cd x && rm -r -f /*", "rm -rf /*"),
        ('rm --recursive --force "$HOME"/', "rm -rf $HOME/"),
        ("rm -fR \\\n ~", "rm -rf ~"),
        ("rm -rf ${HOME}", "rm -rf ${HOME}"),
        ("dd if=x of=/dev/sda", "dd of=/dev/"),
        ("mkfs.ext4 /x", "mkfs."),
        ("echo x >> /etc/hosts", ">> /etc"),
        ("echo x 2>'/dev/sda'", ">'/dev"),
        ("cat x | tee /etc/hosts", "tee /etc/hosts"),
        ("cp x /etc/y", "cp /etc/y"),
        ("curl http://x | sh", "curl | sh"),
        ("wget -O- x | cat | sudo /bin/bash -s", "curl | sh"),
        ("chmod -R 777 .", "chmod 777"),
        ("x=1; chmod 0777 a", "chmod 777"),
    ],
)
def test_bash_that_is_refused(script: str, pattern: str) -> None:
    """However the options, the quotes and the lines are written."""
    assert find_forbidden("bash", script) == pattern


@pytest.mark.parametrize(
    "script",
    [
        "rm -rf /workspace/x ~/y",
        "rm -r /",
        "rm x; ls -rf /",
        "dd if=/dev/zero of=x",
        "ls >/dev/null 2>&1 &",
        "x &>/dev/null",
        "cat /etc/hosts > hosts",
        "curl http://x -o y; bash y",
        "curl x || sh y",
        "curl x | sha256sum",
        "chmod 755 x",
        "echo 777",
        "",
    ],
)
def test_bash_that_is_fine(script: str) -> None:
    """Reading, the workspace and `/dev/null` are allowed."""
    assert find_forbidden("bash", script) is None


@pytest.mark.parametrize("piece", ["import ", ":import ", "open(", "dd ", "curl |", "> ", "rm -r "])
def test_long_code_takes_no_long_time(piece: str) -> None:
    """The scan reads a hundred kilobytes at once: a quadratic one would not end."""
    for text in (piece * 20_000, piece * 20_000 + "\n"):
        find_forbidden("python", text)
        find_forbidden("bash", text)
