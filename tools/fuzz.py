"""Give the readers of foreign files damaged inputs, and keep what is answered by neither a result nor a sentence.

    python tools/fuzz.py list pickle [--minutes 10] [--seed 0]     # or "all"; --write adds a row to results/fuzz.csv
    python tools/fuzz.py list --replay build/fuzz/list/0123abcd    # what such an input does now

`tools/fuzz_readers.py` names the readers and makes valid inputs, `tools/mutate.py` damages them. Inputs are tried in
forked children, 200 each, so that a crash ends a child only. In every fourth child, the lines that are reached are
noted, and an input that reaches a new one is damaged further. A finding is

- an exception other than ValueError and OSError, MemoryError included: a child may use 4 GB more than at its start;
- an error without words, of several lines, longer than 2,000 characters, or that names no file of the input;
- a wrong result, a new file outside of the input's folder, a signal, or more than 5 seconds of a processor.

Findings are kept in build/fuzz/READER, one of a kind, made as small as is quickly done; one that does not come again is
dropped. A seed gives the same inputs on each machine, as many as there is time for.
"""

import argparse
import faulthandler
import hashlib
import mmap
import os
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import CodeType, FrameType

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not outlive a fork

import pandas as pd
from fuzz_readers import READERS, Reader
from mutate import Case, Mutator

import hhlib as hh
from hhlib.common import atomic

PROJECT = Path(__file__).resolve().parent.parent
KEPT = PROJECT / "build" / "fuzz"  #: findings
TABLE = PROJECT / "results" / "fuzz.csv"
LIBRARY = Path(hh.__file__).resolve().parent  #: which may be that of another state of the project
BATCH = 200  #: inputs of a child
SECONDS = 5  #: of a processor that one input may take; four times as many where lines are noted
WAITING = 60  #: seconds after which a child that does nothing is ended
MEMORY = 4 << 30  #: bytes that a child may take beyond what it has at its start
LONGEST = 2000  #: characters of a sentence
TRACED = 4  #: one child of so many notes lines
TRIES, PATIENCE = 60, 10  #: inputs tried, and seconds spent, to make a finding smaller

Finding = tuple[str, str]  #: what is wrong, in a few words that are the same for the same fault; and the rest


def main() -> int:
    """Fuzz, or replay; 1 if there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="+", choices=[*READERS, "all"], metavar="READER", help=", ".join(READERS))
    parser.add_argument("--minutes", type=float, default=10, help="for each reader (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default: 0)")
    parser.add_argument("--write", action="store_true", help="put the result into results/fuzz.csv")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="a finding, which is read once more")
    given = parser.parse_args()
    if given.replay:
        found = lone(READERS[given.readers[0]], read_case(given.replay))
        print(*(found or ("a result or a sentence, as it should be",)), sep="\n")
        return int(found is not None)
    rows = [fuzz(name, given.minutes, given.seed) for name in (READERS if "all" in given.readers else given.readers)]
    if given.write:
        write(rows)
    return int(any(row["findings"] for row in rows))


def fuzz(name: str, minutes: float, seed: int) -> dict:
    """Try one reader for some minutes -> a row of the table."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as place:
        corpus, lines, executions, number = reader.seeds(Path(made)), set(), 0, 0
        if wrong := [found for case in corpus if (found := lone(reader, case))]:
            raise SystemExit(f"{name}: a valid input is a finding: {wrong[0]}")
        start = time.monotonic()
        while time.monotonic() - start < 60 * minutes:
            child = Child(reader, Path(place), KEPT / name)
            executions += child.run(corpus, Random(f"{seed} {number}"), lines if number % TRACED == 0 else None)
            lines |= child.lines
            corpus += child.fresh
            number += 1
        seconds = time.monotonic() - start
    findings = [path.parent for path in sorted((KEPT / name).glob("*/finding.txt")) if smaller(reader, path.parent)]
    whole = set().union(*(lines_of(path) for path in reader.covers))
    row = {"reader": name, "executions": executions, "seconds": round(seconds), "findings": len(findings)}
    row |= {"lines": len(lines & whole), "of_lines": len(whole), "inputs_kept": len(corpus)}
    about = hh.runs.surroundings()
    row |= {"commit": about["git_commit"], "python": about["python"], "cpu": about["machine"]["cpu"]}
    reached = f"{row['lines']} of {row['of_lines']} lines reached, {len(corpus)} inputs kept"
    print(
        f"{name}: {executions:,} executions, {executions / seconds:,.0f} a second; {reached}; {len(findings)} findings"
    )
    for folder in findings:
        print(f"  {folder}: {(folder / 'finding.txt').read_text(encoding='utf-8').splitlines()[0]}")
    return row


class Child:
    """A forked process that tries inputs.

    reader: what is tried; place: a folder for the inputs, where it works; kept: a folder for findings.

    Attributes:
        lines: (file, line) that it reached and that were not known.
        fresh: the inputs that reached them.
    """

    def __init__(self, reader: Reader, place: Path, kept: Path):
        self.reader, self.place, self.kept = reader, place, kept
        self.at = mmap.mmap(-1, 16)  # shared with the parent: how many are done, and when this one began
        self.lines, self.fresh = set(), []

    def run(self, corpus: list[Case], random: Random, known: set | None, *, only: bool = False) -> int:
        """Try `BATCH` inputs made of a corpus, or its first as it is -> how many.

        known: the lines that were reached before, to note new ones; None notes nothing.
        """
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        self.at[:] = struct.pack("qd", 0, time.monotonic())
        if not (pid := os.fork()):
            code = 70
            try:
                self._work(iter(corpus[:1]) if only else self._made(corpus, random), known)
                code = 0
            finally:
                os._exit(code)
        why = self._watch(pid)
        done = struct.unpack("qd", self.at)[0]
        if why:
            self.keep((why, self._fault()), read_case(self.place / "in"))
        elif known is not None:
            self.lines, self.fresh = pickle.loads((self.place / "noted").read_bytes())
        return done + bool(why)

    def _made(self, corpus: list[Case], random: Random) -> Iterator[Case]:
        mutator = Mutator(random, self.reader.tokens)
        return (mutator.case(corpus) for _ in range(BATCH))

    def _watch(self, pid: int) -> str:
        """Wait for the child, and end it if one input takes too long -> why it ended, "" if it did its work."""
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() - struct.unpack("qd", self.at)[1] > WAITING:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return f"waits for more than {WAITING} seconds"
            time.sleep(0.005)
        code = os.waitstatus_to_exitcode(ended[1])
        if code == -signal.SIGXCPU:
            return f"computes for more than {SECONDS} seconds"
        return "" if code == 0 else f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def _fault(self) -> str:
        file = self.place / "fault"
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def _work(self, cases: Iterator[Case], known: set | None) -> None:
        """In the child: try the inputs, keep findings, note lines."""
        os.chdir(self.place)
        faulthandler.enable((self.place / "fault").open("w", encoding="utf-8"))
        warnings.simplefilter("ignore")
        silence = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(silence, stream)
        now = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        notes, fresh = Lines(self.reader, known), []
        for number, case in enumerate(cases):
            write_case(case, self.place / "in")
            self.at[:] = struct.pack("qd", number, time.monotonic())
            limit = int(time.process_time()) + 1 + SECONDS * (1 if known is None else 4)
            resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
            with notes:
                found = judged(self.reader, self.place)
            if found:
                self.keep(found, case)
            elif notes.grew():
                fresh.append(case)
            self.at[:] = struct.pack("qd", number + 1, time.monotonic())
        (self.place / "noted").write_bytes(pickle.dumps((notes.found, fresh)))

    def keep(self, found: Finding, case: Case) -> None:
        """Keep an input, unless there is one that does the same."""
        folder = self.kept / hashlib.sha256(found[0].encode()).hexdigest()[:8]
        if not folder.exists():
            write_case(case, folder / "input")
            (folder / "finding.txt").write_text("\n".join(found), encoding="utf-8", errors="backslashreplace")


class Lines:
    """Notes which lines of a reader's files are reached, while it is entered; nothing if `known` is None."""

    def __init__(self, reader: Reader, known: set | None):
        self.files = {str(source(name)): name for name in reader.covers}
        self.known, self.found, self.before = known, set(), 0

    def __enter__(self) -> None:
        if self.known is not None:
            sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, *_: object):
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame: FrameType, event: str, _: object):
        place = self.files[frame.f_code.co_filename], frame.f_lineno
        if event == "line" and place not in self.known:
            self.found.add(place)
        return self._line

    def grew(self) -> bool:
        """Whether there are new lines since this was last asked."""
        before, self.before = self.before, len(self.found)
        return self.before > before


def source(name: str) -> Path:
    """The file of the code that is tried, by its path in the project."""
    return (LIBRARY.parent if name.startswith("hhlib/") else PROJECT) / name


def lines_of(name: str) -> set[tuple[str, int]]:
    """The lines of a file of the project that functions can reach."""
    todo, found = [compile(source(name).read_text(encoding="utf-8"), name, "exec")], set()
    while todo:
        code = todo.pop()
        todo += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
        if code.co_flags & 1:  # a function, and neither the file itself nor a class
            found |= {(name, line) for *_, line in code.co_lines() if line and line != code.co_firstlineno}
    return found


def judged(reader: Reader, place: Path) -> Finding | None:
    """Read the input in place/in -> the finding, if it is one."""
    there, found = set(os.listdir(place)), None
    try:
        reader.read(place / "in")
    except (ValueError, OSError) as error:
        names = [str(place), *os.listdir(place / "in")] if reader.named else []
        if wrong := fault_of(str(error), names):
            found = f"{type(error).__name__} {wrong} at {where(error)}", traced(error)
    except BaseException as error:
        found = f"{type(error).__name__} at {where(error)}", traced(error)
    if more := set(os.listdir(place)) - there:
        found = f"a file outside of its folder: {sorted(more)}", ""
    return found


def fault_of(text: str, names: list[str]) -> str:
    """What is wrong with the words of an error, "" if nothing is. names: it must have one of them, if there are any."""
    if not text.strip():
        return "without words"
    if "\n" in text.strip():
        return "of several lines"
    if len(text) > LONGEST and "[Errno " not in text:
        return "too long"
    return "" if not names or any(name in text for name in names) else "that names no file"


def where(error: BaseException) -> str:
    """The innermost place in the project where an error came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(LIBRARY))]
    frames = frames or traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}"


def traced(error: BaseException) -> str:
    """The end of an error's traceback."""
    return "".join(traceback.format_exception(error, limit=-6))[-4000:]


def lone(reader: Reader, case: Case) -> Finding | None:
    """What one input does, in a child of its own."""
    with tempfile.TemporaryDirectory() as place:
        child = Child(reader, Path(place) / "one", Path(place) / "kept")
        child.run([case], Random(0), None, only=True)
        found = next((Path(place) / "kept").glob("*/finding.txt"), None)
        return None if found is None else tuple((found.read_text(encoding="utf-8") + "\n").split("\n", 1))


def smaller(reader: Reader, folder: Path) -> bool:
    """Take pieces out of a finding's files as long as the same is wrong -> False if it does not come again."""
    case, tries, start = read_case(folder), 0, time.monotonic()
    wanted = (folder / "finding.txt").read_text(encoding="utf-8").split("\n")[0]
    if (found := lone(reader, case)) is None or found[0] != wanted:
        shutil.rmtree(folder)
        return False
    for name in sorted(case):
        size = len(case[name]) // 2
        while size and tries < TRIES and "seconds" not in wanted:  # which would take long
            for start in range(0, len(case[name]), size):
                tried = case | {name: case[name][:start] + case[name][start + size :]}
                tries += 1
                tries += TRIES * (time.monotonic() - start > PATIENCE)
                if tries < TRIES and (found := lone(reader, tried)) and found[0] == wanted:
                    case = tried
                    break
            else:
                size //= 2
    write_case(case, folder / "input")
    return True


def write_case(case: Case, folder: Path) -> None:
    """Write the files of an input into a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, raw in case.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)


def read_case(folder: Path) -> Case:
    """The files of an input."""
    folder = folder / "input" if (folder / "input").is_dir() else folder
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write(rows: list[dict]) -> None:
    """Put rows into the table, in place of older ones of the same readers."""
    table = pd.read_csv(TABLE) if TABLE.is_file() else pd.DataFrame(columns=["reader"])
    table = pd.concat([table[~table["reader"].isin([row["reader"] for row in rows])], pd.DataFrame(rows)])
    table = table.sort_values("reader", key=lambda names: names.map([*READERS].index))
    with atomic(TABLE) as draft:
        table.convert_dtypes().to_csv(draft, index=False)


if __name__ == "__main__":
    sys.exit(main())
