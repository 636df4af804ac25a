"""Licences and known weaknesses of the packages: results/licences.csv, and one line for each that is not in order.

    python tools/audit.py [--only NAME...] [--service pypi|osv]

Licences are read from the installed packages: what pip put into .venv for pyproject.toml, with all that these need in
turn. They must be among `ALLOWED`. Known vulnerabilities are asked for by pip-audit, for the versions in
constraints.txt, or of those named. Exit code: 0 if all is in order, 1 if not, 3 if no service could be asked.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pandas as pd

from hhlib.common import atomic

PROJECT = Path(__file__).resolve().parent.parent
TABLE = PROJECT / "results" / "licences.csv"
UNREACHED = 3
#: Licences under which anybody may use a package for any purpose. The kit passes no package on: pip fetches each.
ALLOWED = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
    *("ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib"),
    *("LicenseRef-NVIDIA", "LicenseRef-NVIDIA-Proprietary"),  # CUDA, for PyTorch on Linux: free to use, no open source
}
#: What metadata say that is no SPDX name -> the SPDX name. The first that is found in the text counts.
WORDS = {
    "nvidia": "LicenseRef-NVIDIA",
    "mozilla public license 2": "MPL-2.0",
    "mpl": "MPL-2.0",
    "apache": "Apache-2.0",
    "mit-cmu": "MIT-CMU",
    "mit": "MIT",
    "isc": "ISC",
    "unlicense": "Unlicense",
    "python software foundation": "PSF-2.0",
    "psf": "PSF-2.0",
    "2-clause": "BSD-2-Clause",
    "bsd": "BSD-3-Clause",
}
#: Of packages that name no licence: what the same package says at conda-forge, and NVIDIA of all of CUDA.
STATED = {"mlcroissant": "Apache-2.0", "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}


def key(name: str) -> str:
    """A package's name as names are compared: "Jinja2" and "jinja2" are one package."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """The versions of constraints.txt, by name."""
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").split()
    return {key(name): version for name, version in (line.split("==") for line in lines)}


def licence(package: Distribution) -> str:
    """A package's licence as an SPDX expression, or in its own words where these are not known.

    It is taken from the first of these that says something: the expression, the classifiers, the text, a licence file.
    """
    about = package.metadata
    if expression := about.get("License-Expression"):
        return expression
    told = [text.split(" :: ")[-1] for text in about.get_all("Classifier", []) if text.startswith("License ::")]
    told += (about.get("License") or "").splitlines()[:1]
    files = [file for file in package.files or () if re.search(r"dist-info/(.*/)?LICEN[CS]E[^/]*$", file.as_posix())]
    for file in files[:1]:
        told += file.locate().read_text(encoding="utf-8", errors="replace").strip().splitlines()[:1]
    known = (name for text in told for word, name in WORDS.items() if re.search(rf"\b{word}", text.lower()))
    return next(known, STATED.get(key(about["Name"])) or "; ".join(told) or "none named")


def allowed(expression: str) -> bool:
    """Whether an SPDX expression leaves a choice of allowed licences: one of those joined by OR, all joined by AND."""
    parts = [re.split(r"\s+AND\s+", part.strip("() ")) for part in re.split(r"\s+OR\s+", expression)]
    return any(all(name.strip("() ") in ALLOWED for name in part) for part in parts)


def table() -> pd.DataFrame:
    """A row for each installed package but the kit itself: name, version, whether it is pinned, licence."""
    pinned, found = pins(), {}
    for package in distributions():
        name = key(package.metadata["Name"])
        here = "yes" if pinned.get(name) == package.version else "no"
        row = {"package": name, "version": package.version, "pinned": here, "licence": licence(package)}
        found.setdefault(name, row)  # the first is the one that Python imports
    return pd.DataFrame([found[name] for name in sorted(found) if name != "hhlib"])


def weaknesses(wanted: dict[str, str], service: str) -> list[str] | None:
    """Known vulnerabilities of these versions, a line each; None if the service could not be asked."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder, "versions.txt")
        asked.write_text("".join(f"{name}=={version}\n" for name, version in wanted.items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", asked, "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", "--vulnerability-service", service]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print(*done.stderr.splitlines()[-1:], file=sys.stderr)
        return None
    return [told(package, weak) for package in found for weak in package.get("vulns", ())]


def told(package: dict, weak: dict) -> str:
    """A line about a vulnerability."""
    mended = f"mended in {', '.join(weak['fix_versions'])}" if weak["fix_versions"] else "not mended yet"
    return f"{package['name']} {package['version']}: {weak['id']}, {mended}"


def main() -> int:
    """Write the table, and ask; see above for the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="ask for these packages only; without: all pinned")
    parser.add_argument("--service", choices=("pypi", "osv"), default="pypi", help="whom to ask")
    given = parser.parse_args()
    known = pins()
    if unknown := [name for name in given.only or () if key(name) not in known]:
        parser.error(f"{', '.join(unknown)}: not in constraints.txt.")
    found = table()
    with atomic(TABLE) as draft:
        found.to_csv(draft, index=False)
    odd = [f"{row.package} {row.version}: {row.licence}" for row in found.itertuples() if not allowed(row.licence)]
    print(f"{len(found)} packages, {len(odd)} with a licence that is not in the list.", *odd, sep="\n  ")
    wanted = {key(name): known[key(name)] for name in given.only or known}
    weak = weaknesses(wanted, given.service)
    if weak is None:
        print("Known vulnerabilities could not be asked for: the service was not reached.")
        return 1 if odd else UNREACHED
    print(f"{len(wanted)} packages asked for, {len(weak)} known vulnerabilities.", *weak, sep="\n  ")
    return int(bool(odd or weak))


if __name__ == "__main__":
    sys.exit(main())
