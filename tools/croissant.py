"""A split as Croissant: who is a query, a training picture, a picture of the database, and with which labels.

A folder with query.csv, train.csv and database.csv, and croissant.json, which describes them in Croissant 1.1. No
picture is copied: a line names one by its path in the data set or, where it has none, by its place in the source.
"""

import hashlib
import json
from datetime import date
from importlib.metadata import version
from pathlib import Path

import mlcroissant as mlc
import pandas as pd
from origins import Origin, origin_of

import hhlib as hh
from hhlib.data.download import Archive

NAME = "croissant.json"
VERSION = "http://mlcommons.org/croissant/1.1"
#: The terms of mlcroissant's own context, and those that came with version 1.1.
CONTEXT = mlc.Rdf().context | {
    "arrayShape": "cr:arrayShape",
    "containedIn": "cr:containedIn",
    "description": {"@container": "@language"},
    "isArray": "cr:isArray",
    "name": {"@container": "@language"},
}


def write(split: hh.data.Split, folder: Path, *, drawn: bool = True) -> list[str]:
    """Write a split's lists and their description into a folder -> what Croissant would like to know besides.

    drawn: whether the seed says who goes where; otherwise list files did.

    Raises:
        mlcroissant.ValidationError: if the description is not valid.
        ValueError: if nothing has a label.
    """
    split.need_labels()
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in split.parts().items():
        table(part).to_csv(folder / f"{name}.csv", index=False)
    content = json.dumps(described(split, folder, drawn), indent=1, ensure_ascii=False)
    (folder / NAME).write_text(content + "\n", encoding="utf-8")
    return sorted(mlc.Dataset(jsonld=folder / NAME).metadata.issues.warnings)


def table(part: hh.data.Part) -> pd.DataFrame:
    """A line for each picture: its path or row, and its labels, a 0 or 1 for each class ("0 0 1")."""
    rows = part.rows.tolist()
    pictures = {"path": [part.pool.paths[row] for row in rows]} if part.pool.paths else {"row": rows}
    return pd.DataFrame(pictures | {"labels": [" ".join(map(str, labels)) for labels in part.labels.tolist()]})


def described(split: hh.data.Split, folder: Path, drawn: bool) -> dict:
    """The description of a split whose lists are in a folder, as JSON-LD."""
    origin, parts = origin_of(split.name), split.parts()
    about = [origin.about] + ([split.protocol.about] if split.name in hh.data.names() else [])
    about.append(f"Pictures: {', '.join(f'{size:,} {name}' for name, size in split.sizes.items())}; none is in here.")
    about.append(f"Drawn from seed {split.seed}." if drawn else "Given lists say who goes where.")
    about.append(f"SHA-256 of the three lists: {split.fingerprint()}.")
    facts = {
        "name": f"{split.name}, seed {split.seed}" if drawn else f"{split.name}, given lists",
        "description": " ".join(about),
        "license": origin.license,
        "url": origin.url,
        "citeAs": origin.cite,
        "version": version("hhlib"),
        "datePublished": date.today().isoformat(),
        "isBasedOn": [archive.url for archive in archives_of(split.name)] or None,
        "keywords": ["image retrieval", "deep hashing"],
        "distribution": [list_file(folder / f"{name}.csv") for name in parts] + archive_files(split.name),
        "recordSet": [records(name, part, origin) for name, part in parts.items()],
    }
    facts["recordSet"] += [classes(split), identity(split, drawn)]
    known = {name: value for name, value in facts.items() if value is not None}
    return {"@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": VERSION} | known


def list_file(path: Path) -> dict:
    """One of the three lists."""
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "description": f"A line for each picture of the {path.stem} set.",
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "text/csv",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def archives_of(name: str) -> list[Archive]:
    """What the kit can download for a data set."""
    return hh.data.sources.archives(name)[1] if name in hh.data.names() else []


def archive_files(name: str) -> list[dict]:
    """The archives with a published checksum, because Croissant demands one of every file."""
    return [
        {
            "@type": "cr:FileObject",
            "@id": Path(archive.url).name,
            "name": Path(archive.url).name,
            "description": "An archive of the source. The lists name what is in it, and nothing reads it from here.",
            "contentUrl": archive.url,
            "encodingFormat": "application/zip" if archive.url.endswith(".zip") else "application/gzip",
            "md5": archive.md5,
        }
        for archive in archives_of(name)
        if archive.md5
    ]


def records(name: str, part: hh.data.Part, origin: Origin) -> dict:
    """A part: the picture and the labels of each line."""
    width = len(part.pool.classes)
    if part.pool.paths:
        picture = field(name, "path", "sc:Text", "Path of the picture, from the folder of the data set.")
    else:
        picture = field(name, "row", "sc:Integer", f"Place of the picture, from 0, among {origin.order}.")
    labels = field(name, "labels", "sc:Integer", f"For each of the {width} classes, 1 if the picture shows it, else 0.")
    labels |= {"isArray": True, "arrayShape": str(width)}
    for one in (picture, labels):
        one["source"] = {"fileObject": {"@id": f"{name}.csv"}, "extract": {"column": one["name"]}}
    labels["source"]["transform"] = {"separator": " "}
    about = f"The {name} set; the order of labels is that of the classes."
    return record_set(name, about, [picture, labels])


def classes(split: hh.data.Split) -> dict:
    """The classes, numbered in the order of the labels."""
    fields = [field("classes", "number", "sc:Integer", "Place among the labels, from 0.")]
    fields.append(field("classes", "name", "sc:Text", "What a picture shows."))
    rows = [{"classes/number": number, "classes/name": name} for number, name in enumerate(split.classes)]
    about = record_set("classes", "The classes that labels are about.", fields)
    return about | {"dataType": "sc:Enumeration", "key": {"@id": "classes/number"}, "data": rows}


def identity(split: hh.data.Split, drawn: bool) -> dict:
    """By what a program knows the split again."""
    fields = [field("split", "fingerprint", "sc:Text", "SHA-256 of the three lists, as the kit computes it.")]
    row = {"split/fingerprint": split.fingerprint()}
    if drawn:
        fields.append(field("split", "seed", "sc:Integer", "Seed from which the kit draws the split."))
        row["split/seed"] = split.seed
    return record_set("split", "By what the split is known again.", fields) | {"data": [row]}


def record_set(name: str, about: str, fields: list[dict]) -> dict:
    """Records with these fields."""
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": about, "field": fields}


def field(records: str, name: str, kind: str, about: str) -> dict:
    """A field of a set of records."""
    identity = {"@type": "cr:Field", "@id": f"{records}/{name}", "name": name}
    return identity | {"description": about, "dataType": kind}
