"""What keeps the kit usable on Windows and macOS, as far as it can be read off the code and the names of files."""

import ast
import re
import subprocess
from importlib.metadata import distributions, version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

PROJECT = Path(__file__).parent.parent
#: They start a cluster, on Linux.
OF_LINUX = {"no_cluster.py", "private_slurm.py", "try_imagenet.py", "try_kubernetes.py", "try_slurm.py"}
OF_LINUX |= {"fuzz.py", "mutate.py"}  # each input is read in a fork of the process
#: What Python lacks on Windows or, like the last three of os, on macOS.
LACKING = {
    "os": """chown chroot fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getuid killpg lchown mkfifo
        mknod nice openpty pathconf posix_spawn setgid setpgid setsid setuid statvfs sysconf uname wait WNOHANG
        memfd_create posix_fallocate sched_getaffinity""",
    "signal": "alarm pause pthread_kill setitimer sigwait SIGALRM SIGHUP SIGKILL SIGQUIT SIGSTOP SIGUSR1 SIGUSR2",
    "time": "tzset",
    "socket": "AF_UNIX",
}
MODULES = {"crypt", "curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
NEED_RIGHTS = {"symlink", "symlink_to", "link", "hardlink_to"}  #: Windows and some file systems refuse them
FOLDERS = re.compile(r"/(proc|sys|dev|etc|usr|var|tmp)\b")
ASKS = re.compile(r"hasattr\(|os\.name|sys\.platform|platform\.system\(\)")
USED = [path for folder in ("hhlib", "tools") for path in sorted((PROJECT / folder).rglob("*.py"))]
USED = [path for path in USED if path.name not in OF_LINUX]


def faults(code):
    """What would fail on Windows or macOS, and is neither in a function that asks first nor in a `try`."""
    tree = ast.parse(code)
    outside = {node: above for above in ast.walk(tree) for node in ast.iter_child_nodes(above)}
    found = [(_lacking(node), node) for node in ast.walk(tree)]
    return [what for what, node in found if what and not _guarded(what, node, outside)]


def _lacking(node):
    match node:
        case ast.Attribute(value=ast.Name(id=module), attr=name) if name in LACKING.get(module, "").split():
            return f"{module}.{name}"
        case ast.Call(func=ast.Attribute(attr=name)) if name in NEED_RIGHTS:
            return name
        case ast.Import(names=names) if found := MODULES & {name.name.split(".")[0] for name in names}:
            return f"import {', '.join(found)}"
        case ast.ImportFrom(module=module) if module in MODULES:
            return f"import {module}"
        case ast.Constant(value=str(text)) if FOLDERS.match(text):
            return text
    return None


def _guarded(what, node, outside):
    """Whether a `try` or `suppress` is around a node, or its function asks what there is."""
    while node in outside:
        node = outside[node]
        if isinstance(node, ast.Try) or (isinstance(node, ast.With) and "suppress" in ast.unparse(node.items[0])):
            return True
        if isinstance(node, ast.FunctionDef):
            return bool(ASKS.search(text := ast.unparse(node))) or ("/" in what and "is_file()" in text)
    return False


@pytest.mark.parametrize("path", USED, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_is_used_that_only_linux_has_without_asking_first(path):
    assert faults(path.read_text(encoding="utf-8")) == []


def test_the_rule_finds_what_it_is_for():
    assert faults("import os\nos.fork()") == ["os.fork"]
    assert faults("import fcntl") == ["import fcntl"]
    assert faults("def f():\n    return open('/proc/cpuinfo')") == ["/proc/cpuinfo"]
    assert faults("def f():\n    return os.sysconf('A') if path.is_file() else 0") == ["os.sysconf"]
    assert faults("path.symlink_to(other)") == ["symlink_to"]
    assert faults("def f():\n    return os.nice(1) if hasattr(os, 'nice') else 0") == []
    assert faults("try:\n    os.link(a, b)\nexcept OSError:\n    pass") == []


@pytest.fixture(scope="module")
def names():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=False).stdout.decode()
    return [name for name in listed.split("\0") if name] or pytest.skip("this is no clone")


def test_every_file_can_be_checked_out_on_every_system(names):
    """Windows and macOS take "A" and "a" for one; Windows forbids some names, and paths above 260 characters."""
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert len(name) <= 120, name  # and 140 for the folder in which the project is
        for part in name.split("/"):
            assert not re.search(r'[<>:"|?*\\\x00-\x1f]|[. ]$', part), name
            assert not re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", part, re.IGNORECASE), name


def test_every_pinned_package_installs_on_the_oldest_python():
    """The first version of 3.11 too, not only the newest: Debian 12 has 3.11.2, for which one pin was too new."""
    pinned = set((PROJECT / "constraints.txt").read_text().lower().split())
    told = {}
    for package in distributions():  # the first of a name is the one that Python imports
        named = f"{package.metadata['Name']}=={package.version}"
        told.setdefault(named, package.metadata.get("Requires-Python") or "")
    known = {name: wanted for name, wanted in told.items() if name.lower() in pinned}
    if f"torch=={version('torch')}" not in pinned:
        pytest.skip("other versions than the pinned ones are installed")
    assert len(known) > 100
    assert [name for name, wanted in known.items() if not SpecifierSet(wanted).contains("3.11.0")] == []
