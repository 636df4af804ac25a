"""Trace the numbers that README files and pages quote to the tables they come from.

    python tools/quoted.py     # names every number that nobody traces, and every row that no longer holds; then exits 1

What looks measured (decimals, percentages, and numbers with a unit of time, memory or speed, points, times) must be in

- results/quoted.csv: `quote`, a phrase of the file that holds `number`, and `source`, which gives that number; or
- results/given.csv: `text`, a phrase whose numbers were not measured here (# stands for any), and `why`; `file` may
  be a pattern.

A source is one of

    TABLE | ROWS | COLUMN             cifar10.csv | bits == 64 & seed == 0 | expected
    TABLE | ROWS | COLUMN | HOW       cifar10.csv | bits == 64 | expected | mean
    TABLE | NAME                      measured.csv | torch.compile: compiling
    SOURCE plus SOURCE, SOURCE minus SOURCE, SOURCE over SOURCE; from left to right, and a number is a source too

TABLE lies in results/; ROWS is a pandas query or "all"; COLUMN may compute, as in 100 * expected; HOW is only (there is
one value, which is the default), mean, std, median, min, max or sum. NAME is a row's `name`, whose `value` is taken.
Tables between <!-- table: ... --> and <!-- end -->, code, formulas and addresses of links are not searched.
"""

import fnmatch
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nbformat
import pandas as pd

RESULTS = Path(__file__).resolve().parent.parent / "results"
FILES = ("README.md", "*/README.md", "results/*/README.md", "notebooks/[0-9]*.ipynb")
COMBINE = {"plus": float.__add__, "minus": float.__sub__, "over": float.__truediv__}
HOWS = ("mean", "std", "median", "min", "max", "sum")
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
PARTS = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4, "a fifth": 1 / 5, "three quarters": 3 / 4}
PARTS |= {"four fifths": 4 / 5, "a tenth": 1 / 10, "twice": 2}

HIDDEN = re.compile(
    r"<!-- table: .*?<!-- end -->|```.*?```|^(?: {4}[^\n]*\n)+|\$\$.*?\$\$|\$[^$\n]+\$|`[^`\n]*`|\]\([^)\s]*\)"
    r"|arXiv [\d.]+|https?://\S+",
    re.DOTALL | re.MULTILINE,
)
_UNIT = (
    r"(?:%|(?:s|ms|ns|µs|seconds?|minutes?|hours?|[KMG]i?B|bytes|T?G?FLOP|TFLOP/s|(?:images)?/s|points?|times"
    r"|different codes)(?![\w/]))"
)
_WHOLE = r"\d[\d,]*(?<!,)"
_MORE = rf"(?:,? (?:to|and|or|,) {_WHOLE}|, {_WHOLE})*"  # 23, 120 and 28 different codes
MEASURED = re.compile(
    rf"(?<![\w.,^])(?<!\w-)(?<!\d/)(?:{_WHOLE}\.\d+|\d+e-\d+|{_WHOLE}(?={_MORE}[ -]?{_UNIT})"
    rf"|(?:{'|'.join(WORDS)})(?= {_UNIT})|(?:{'|'.join(PARTS)})(?= (?:of )?the (?:time|outputs|images)\b))"
    r"(?!\w|[.,]\d)",
    re.IGNORECASE,
)


def files(project: Path) -> dict[str, str]:
    """The texts that are searched, by their path in the project; of a page what stands between its cells."""
    paths = sorted({path for pattern in FILES for path in project.glob(pattern)})
    return {path.relative_to(project).as_posix(): text_of(path) for path in paths}


def text_of(path: Path) -> str:
    """A file's prose."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def measured(text: str) -> list[tuple[int, int]]:
    """Where a text has a number that looks measured."""
    shown = HIDDEN.sub(lambda part: re.sub(r"[^\n]", "\0", part[0]), text)
    return [found.span() for found in MEASURED.finditer(re.sub(r"\s", " ", shown))]


def stands(phrase: str, text: str) -> list[tuple[int, int]]:
    """Where a phrase stands in a text; a line may break at its blanks, and # is any number."""
    pattern = r"\s+".join(re.escape(word).replace(r"\#", r"[\d.,]+") for word in phrase.split())
    return [found.span() for found in re.finditer(pattern, text)]


def places(quote: str, number: str, text: str) -> list[tuple[int, int]]:
    """Where a quote's number stands in a text. ValueError unless the quote stands there and has the number once."""
    token = re.compile(rf"(?<![\d.,]){re.escape(number)}(?!\d|[.,]\d)")
    if len(token.findall(quote)) != 1:
        raise ValueError(f"the quote {quote!r} does not hold {number} once")
    found = [token.search(text, start, end) for start, end in stands(quote, text)]
    if not found:
        raise ValueError(f"the quote {quote!r} does not stand there any more")
    return [place.span() for place in found]


@cache
def table(name: str) -> pd.DataFrame:
    """A table in results/."""
    return pd.read_csv(RESULTS / name)


def value(source: str) -> float:
    """What a source gives. ValueError, KeyError or FileNotFoundError for one that gives nothing."""
    first, *more = re.split(r" (plus|minus|over) ", source)
    if more:
        found = value(first)
        for word, other in zip(more[::2], more[1::2], strict=True):
            found = COMBINE[word](found, value(other))
        return found
    if re.fullmatch(r"[\d.]+", source):
        return float(source)
    name, rows, *rest = (part.strip() for part in source.split(" | "))
    if not rest:
        rows, rest = f"name == {rows!r}", ["value"]
    column, how = rest if len(rest) == 2 else (*rest, "only")
    chosen = table(name) if rows == "all" else table(name).query(rows)
    return aggregate(chosen.eval(column).dropna(), how)


def aggregate(values: pd.Series, how: str) -> float:
    """One number of many. ValueError if there is none, or not one where one is asked for."""
    if how in HOWS and len(values):
        return float(getattr(values, how)())
    if how != "only" or values.nunique() != 1:
        raise ValueError(f"{how} of {len(values)} values, {values.nunique()} of them different")
    return float(values.iloc[0])


def prints(number: str, found: float) -> bool:
    """Whether a value is printed as this number: to its digits, as a word or, within a fifth, as a part of a whole."""
    word = number.lower()
    if word in PARTS:
        return abs(found / PARTS[word] - 1) < 0.2
    if word in WORDS:
        return round(found) == WORDS.index(word)
    if "e" in word:
        return f"{found:.0e}".replace("e-0", "e-") == word
    return f"{found:,.{len(word.partition('.')[2])}f}" == word


def faults(name: str, text: str, quoted: pd.DataFrame, given: pd.DataFrame) -> Iterator[str]:
    """What is wrong with a text: rows that do not hold, and numbers that nobody traces."""
    covered = []
    for row in quoted[quoted["file"] == name].itertuples():
        try:
            covered += places(row.quote, row.number, text)
            if not prints(row.number, found := value(row.source)):
                yield f"{row.quote!r} says {row.number}, but {row.source} gives {found:g}"
        except (ValueError, KeyError, FileNotFoundError, pd.errors.UndefinedVariableError) as error:
            yield f"{row.quote!r}, {row.source}: {error}"
    for row in given[[fnmatch.fnmatch(name, pattern) for pattern in given["file"]]].itertuples():
        covered += (found := stands(row.text, text))
        if not any(first <= start and end <= last for start, end in measured(text) for first, last in found):
            yield f"given.csv: {row.text!r} does not stand there, or has no number that looks measured"
    for start, end in measured(text):
        if not any(first <= start and end <= last for first, last in covered):
            around = " ".join(text[max(0, start - 50) : end + 30].split())
            yield f"{text[start:end]} is not traced: ... {around} ..."


def all_faults() -> list[str]:
    """The faults of all files, each with its file; and rows about files that do not exist."""
    quoted, given = (pd.read_csv(RESULTS / f"{name}.csv", dtype=str) for name in ("quoted", "given"))
    texts = files(RESULTS.parent)
    found = [f"{name}: {fault}" for name, text in texts.items() for fault in faults(name, text, quoted, given)]
    names = {*quoted["file"], *given["file"]}
    return found + [
        f"{name} is not a file that is searched" for name in sorted(names) if not fnmatch.filter(texts, name)
    ]


def main() -> int:
    """Name all faults; 1 if there are any."""
    found = all_faults()
    print(*found or ["Every number that looks measured is traced."], sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
