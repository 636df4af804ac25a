"""A run as an RO-Crate: its files, and what made them from what, so that other programs can read it.

The metadata follow RO-Crate 1.1 and its profile Process Run Crate 0.5: training and scoring are one `CreateAction`,
whose instrument is the kit, whose objects are the data set and the parameters, whose results are files and scores.
"""

import hashlib
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import pandas as pd
from origins import LICENSE, origin_of
from rocrate.model import ContextEntity, File
from rocrate.rocrate import ROCrate
from run_notebooks import drawn

import hhlib as hh
from hhlib.settings.fields import DOTTED

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"  #: where the profile defines sha256

#: What takes part, and what it is. training_state.pt is left out: it serves only to resume the run where it was made.
FILES = {
    "run.json": "Parameters, network, loss, facts of the data, package versions, commit and machine of the run",
    "history.csv": "A row for each epoch: loss, learning rate, scores of held-out images",
    "timing.csv": "Seconds of each epoch",
    "metrics.json": "Scores of the codes, and what must be said beside them",
    "classes.csv": "Expected mAP by class of the query",
    "explanations.csv": "Tests of maps that explain the codes",
    "README.md": "Model card",
    "model.safetensors": "Weights of the chosen epoch",
    "codes.npz": "Packed codes and multi-hot labels of query and database set",
    "database_codes.npz": "Packed codes that the method learnt for the database",
    "*.png": "Figure",
    "figures/*.png": "Figure",
    "notebooks/*.ipynb": "Executed page with its outputs",
}
FORMATS = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".png": "image/png",
    ".ipynb": "application/x-ipynb+json",
    ".safetensors": "application/octet-stream",
    ".npz": "application/zip",
}
#: Where formats without a media type of their own are described: name, address.
PAGES = {
    ".safetensors": ("safetensors", "https://huggingface.co/docs/safetensors"),
    ".npz": ("NumPy's format", "https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"),
}
SCORES = {
    "expected": "Mean over all orders of images at equal distance",
    "best": "The most that an order of images at equal distance could give",
    "worst": "The least that an order of images at equal distance could give",
}


def write(run: hh.runs.Run, folder: Path) -> None:
    """Write a run's crate into a folder. FileNotFoundError if the run has no run.json."""
    record = run.record
    scores = run.metrics() if (run.path / "metrics.json").is_file() else None
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    files = [add_file(crate, *found) for found in exported(run.path)]
    results = [] if scores is None else add_scores(crate, scores)
    action = crate.add_action(
        add_software(crate, record),
        identifier=f"#run-{digest(run.path / 'run.json')[:12]}",
        object=[add_data(crate, record), *add_parameters(crate, run.parameters)],
        result=files + results,
        properties={
            "name": f"training of {named(record)}",
            "description": hh.settings.words(flat(run.parameters).items()),
        },
    )
    action["additionalProperty"] = add_machine(crate, record, run.path / "timing.csv")
    describe(crate, record, scores)
    crate.root_dataset["mentions"] = action
    if results:
        crate.root_dataset["variableMeasured"] = results
    crate.write(folder)


def exported(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """The files of a run that take part: where they are, their path in the crate, what they are."""
    for pattern, what in FILES.items():
        captions = drawn((folder / pattern).parent) if pattern.endswith(".png") else {}
        for path in sorted(folder.glob(pattern)):
            yield path, path.relative_to(folder).as_posix(), captions.get(path.stem) or what


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add_file(crate: ROCrate, path: Path, name: str, what: str) -> File:
    """Put a file into the crate, with its size, its digest and its format."""
    facts = {"name": name, "description": what, "contentSize": str(path.stat().st_size), "sha256": digest(path)}
    facts["encodingFormat"] = FORMATS[path.suffix]
    if path.suffix in PAGES:
        title, page = PAGES[path.suffix]
        about = crate.get(page) or crate.add_jsonld({"@id": page, "@type": "WebSite", "name": title})
        facts["encodingFormat"] = [FORMATS[path.suffix], about]
    return crate.add_file(path, name, properties=facts)


def add_value(crate: ROCrate, kind: str, name: str, value, what: str = "") -> ContextEntity:
    """A named value. JSON-LD drops null, so None is the word none, as in settings; so are lists words with commas."""
    plain = ",".join(map(str, value)) if isinstance(value, list | tuple) else "none" if value is None else value
    facts = {"@id": f"#{kind}-{quote(name)}", "@type": "PropertyValue", "name": name, "value": plain}
    return crate.add_jsonld(facts | ({"description": what} if what else {}))


def flat(parameters: dict) -> dict:
    """Parameters by the names that set them: {"recipe": {"erase": 0, "net": {"stem": "conv"}}} -> erase, net.stem."""
    recipe = dict(parameters["recipe"])
    dotted = {f"{group}.{name}": value for group in DOTTED for name, value in recipe.pop(group).items()}
    return {name: value for name, value in parameters.items() if name != "recipe"} | recipe | dotted


def add_parameters(crate: ROCrate, parameters: dict) -> list[ContextEntity]:
    """What the run was asked to do, each with its help text."""
    own = hh.losses.hyperparameters(parameters["method"])
    texts = hh.settings.helps() | {f"loss.{name}": field.metadata["help"] for name, field in own.items()}
    return [add_value(crate, "parameter", name, x, texts.get(name, "")) for name, x in flat(parameters).items()]


def add_scores(crate: ROCrate, scores: dict) -> list[ContextEntity]:
    """The scores that README quotes, and that of chance; with the remarks that belong beside them."""
    name = f"mAP@{scores['topk']}" if scores["topk"] else "mAP"
    beside = "".join(f"; {remark}" for remark in scores["remarks"])
    added = [add_value(crate, "score", f"{name} {k}", scores["map"][k], what + beside) for k, what in SCORES.items()]
    what = "Expected mAP of codes that say nothing"
    return [*added, add_value(crate, "score", f"{name} by chance", scores["chance"], what)]


def add_data(crate: ROCrate, record: dict) -> ContextEntity:
    """The data set, as far as a run knows it; `tools/export.py dataset` describes it wholly."""
    facts, name = record["data"], record["parameters"]["dataset"]
    counts = {f"{part} images": count for part, count in facts["sizes"].items()}
    counts |= {"images trained on": facts["trained_on"], "images held out to choose the epoch": facts["validation"]}
    counts |= {"seed of the split": facts["split_seed"], "classes": facts["classes"]}
    known, origin = hh.data.PROTOCOLS.get(name), origin_of(name)
    about = [origin.about, known.about if known else "", "The pictures are not in this crate."]
    entity = {
        "@id": f"#data-{quote(name)}",
        "@type": "CreativeWork",
        "name": name,
        "description": " ".join(filter(None, about)),
        "identifier": f"SHA-256 of the three lists: {facts['fingerprint']}",
        "additionalProperty": [add_value(crate, "data", *pair) for pair in counts.items()],
    }
    terms = {"url": origin.url, "license": origin.license, "citation": origin.cite}
    return crate.add_jsonld(entity | {key: value for key, value in terms.items() if value})


def add_software(crate: ROCrate, record: dict) -> ContextEntity:
    """The kit, at the run's commit, and the packages that it used."""
    packages = {"python": record["python"]} | record["packages"]
    about = "The version number is that of the kit that wrote this crate; the commit is that of the kit that trained."
    facts = {
        "@id": "#hhlib",
        "@type": ["SoftwareApplication", "SoftwareSourceCode"],
        "name": "hhlib, the HybridHash kit",
        "description": about,
        "version": version("hhlib"),
        "license": {"@id": LICENSE},
        "programmingLanguage": f"Python {record['python']}",
        "operatingSystem": record["machine"]["system"],
        "softwareRequirements": [add_package(crate, *pair) for pair in packages.items()],
    }
    if record["git_commit"]:
        facts["identifier"] = add_value(crate, "software", "git commit", record["git_commit"])
    return crate.add_jsonld(facts)


def add_package(crate: ROCrate, name: str, number: str) -> ContextEntity:
    """A package that the kit used."""
    facts = {"@id": f"#package-{name}", "@type": "SoftwareApplication", "name": name, "version": number}
    return crate.add_jsonld(facts)


def add_machine(crate: ROCrate, record: dict, timing: Path) -> list[ContextEntity]:
    """What computed, and for how long. When it did is not recorded, so that the action has no times."""
    facts = {"device": record["device"]} | record["machine"]
    added = [add_value(crate, "machine", name.replace("_", " "), value) for name, value in facts.items()]
    if timing.is_file():
        seconds = float(pd.read_csv(timing)["seconds"].sum())
        added.append(add_value(crate, "machine", "seconds of training", seconds, "sum of timing.csv"))
    return added


def named(record: dict) -> str:
    """A run in a few words."""
    of = record["parameters"]
    return f"{of['method']} with network {of['network']} and {of['bits']} bits on {of['dataset']}, seed {of['seed']}"


def describe(crate: ROCrate, record: dict, scores: dict | None) -> None:
    """Fill in what the crate as a whole is."""
    crate.name = f"Run of the HybridHash kit: {named(record)}"
    how = "not scored" if scores is None else f"expected mAP {scores['map']['expected']:.3f}; {scores['split']}"
    crate.description = f"A network that gives pictures short binary codes, what it learnt from, and its scores: {how}"
    crate.datePublished = date.today()
    crate.keywords = ["image retrieval", "deep hashing", record["parameters"]["method"]]
    crate.license = crate.add_jsonld({"@id": LICENSE, "@type": "CreativeWork", "name": "Apache License 2.0"})
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": PROFILE.split("/")[-1]}
    crate.root_dataset["conformsTo"] = crate.add_jsonld(profile)
