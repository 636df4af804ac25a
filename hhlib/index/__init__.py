"""An index of a folder of pictures: codes, paths and vectors on disk, to search and to change.

`store` keeps rows, `encoding` goes through files, `unsupervised` fits codes where nothing was trained, `searching`
finds the nearest, `folder` is what is used.
"""

from pathlib import Path

from hhlib import data, runs, training
from hhlib import network as networks
from hhlib.common import check_bits, check_choice, check_whole, resolve
from hhlib.encoder import Encoder, encoder_of
from hhlib.index import encoding, store, unsupervised
from hhlib.index.encoding import Report
from hhlib.index.folder import Coded, Hit, Index

SAMPLE = 5000  #: pictures to which iterative quantisation is fitted, at most
VECTORS = ("auto", "outputs", "backbone", "none")


def build(
    folder: str | Path,
    *,
    network: str | None = None,
    bits: int | None = None,
    run: runs.Run | str | Path | None = None,
    where: str | Path | None = None,
    vectors: str = "auto",
    size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> Index:
    """Code all pictures below a folder, and keep the codes on disk; an index that is there is brought up to date.

    Without a run, no labels and no training are needed: a pretrained network looks at the pictures, and iterative
    quantisation, fitted to them, makes codes of what it sees. Files that cannot be used are left out, and
    `Index.report` says which. It resumes where it was stopped.

    Args:
        network: "lite0" (None), or timm's name of a pretrained model.
        bits: code length, 1 to 1024; None is 64.
        run: a trained network in place of both: a run, or its folder.
        where: folder of the index; None is ``runs/<folder>/index-<network>-<bits>bits`` or, with a run, in its folder.
        vectors: what breaks ties: the network's "outputs" (2 bytes per bit), the "backbone"'s vectors (2 bytes per
            number, 1,280 of them for lite0), or "none". "auto" takes the vectors where nothing was trained.
        size: side to which pictures are cut and scaled, in pixels; None is the network's own.
        workers: threads that open pictures; None takes one per usable core, 0 is one.
        seed: of iterative quantisation.
        device, precision: see `hhlib.settings`.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no picture that can be read, or `where` an index of something else.
        RuntimeError: if another process is writing to the index.
    """
    folder, report = resolve(folder), Report()
    if folder.is_file():
        raise ValueError(f"{folder} is a file, but an index is of a folder.")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}.")
    check_choice("vectors", vectors, VECTORS)
    check_whole("seed", seed, 0)
    if workers is not None:
        check_whole("workers", workers, 0)
    if run is not None and (network, bits) != (None, None):
        raise ValueError(f"network is {network!r} and bits {bits!r}, but a run has both: leave them out.")
    chosen = training.choose_precision(precision, training.choose_device(device))
    if run is None:
        named = dict(bits=check_bits(64 if bits is None else bits), size=size, precision=chosen)
        encoder = unsupervised.unfitted(network or "lite0", **named)
    else:
        run = run if isinstance(run, runs.Run) else runs.Run(run)
        encoder = encoder_of(run, precision=chosen)
    if vectors == "backbone" and encoder.backbone is None:
        raise ValueError(f"vectors is 'backbone', but {encoder.model['name']} has no frozen one; it must be outputs.")
    where = resolve(where) if where else default_place(folder, encoder, run)
    _check_free(where)
    if not (where / "index.json").is_file():
        kind = vectors if vectors != "auto" else "backbone" if run is None else "outputs"
        encoder.to(training.choose_device(device))
        with store.writing(where):
            if not (where / "index.json").is_file():  # another process may have been here
                _begin(folder, encoder, where, kind, report, None if run else seed, workers)
    index = Index(where, device)
    asked = {"vectors": vectors, "precision": precision, "size": size or "auto"}
    asked |= {"network": encoder.model["name"], "bits": encoder.bits, "root": str(folder)}
    _check_same(index, asked, run and networks.digest(encoder.net))
    index.update(workers=workers)
    index.report.encoded += report.encoded
    return index


def open(where: str | Path, *, device: str = "auto") -> Index:
    """An index on disk.

    Raises:
        FileNotFoundError: if there is none, or its first build was stopped.
        ValueError: if it is damaged.
    """
    index = Index(resolve(where), device)
    if not index.store.about["built"]:
        raise FileNotFoundError(f"the build of {index.where} was stopped; `hhlib index {index.root}` resumes it.")
    return index


def default_place(folder: Path, encoder: Encoder, run: runs.Run | None) -> Path:
    """Where the index of a folder is, unless said otherwise."""
    name = data.short_name(folder)
    if run is not None:
        return run.path / f"index-{name}"
    return resolve("runs") / name / f"index-{encoder.model['name']}-{encoder.bits}bits"


def find(root: str | Path = "runs", *, of: str | Path | None = None) -> list[Path]:
    """The indexes below a folder, the newest last; of: only those of this folder of pictures. Broken ones are named."""
    found = []
    for file in resolve(root).glob("**/index.json"):
        try:
            about = store.about_of(file.parent)
            if of is None or about.get("root") == str(resolve(of)):
                found.append((file.stat().st_mtime, file.parent))
        except (ValueError, OSError) as error:
            print(f"{file.parent} is left out: {error}")
    return [place for _, place in sorted(found)]


def _begin(folder: Path, encoder: Encoder, where: Path, kind: str, report: Report, seed: int | None, workers) -> None:
    """An index without rows; where nothing was trained (`seed` says so), codes are fitted to the first pictures."""
    found = data.scan(folder)
    level = encoding.label_level(found)
    pictures = encoding.pictures_of(encoding.files_in(found, Report()), folder, level, report)
    if not pictures:
        raise ValueError(f"{folder} holds no picture that can be read.")
    if seed is not None:
        sample, blocks = pictures[:SAMPLE], encoding.Blocks(where, encoder)
        encoding.look(encoder, sample, blocks, report, workers)
        unsupervised.fit(encoder, encoding.seen(blocks, sample), seed)
    encoder.save_pretrained(where / "encoder")
    about = {"root": str(folder), "level": level, "vectors": kind, "model": encoder.digest()}
    store.Store.create(where, about | {"built": False})


def _check_free(where: Path) -> None:
    """Raise ValueError unless a place is new, or holds an index or the start of one."""
    there = {path.name for path in where.iterdir() if path.name[0] != "."} if where.is_dir() else set()
    if where.is_file() or not there <= {"index.json", "segments", "encoder", "blocks"}:
        raise ValueError(f"{where} holds other files, but an index needs a folder of its own.")


def _check_same(index: Index, asked: dict, trained: str | None) -> None:
    """Raise ValueError unless an index that was there already is the one that was asked for.

    trained: digest of the trained network, if one was asked for.
    """
    encoder = index.encoder
    there = {"network": encoder.model["name"], "bits": encoder.bits, "size": encoder.size, "root": str(index.root)}
    there |= {"vectors": index.vectors, "precision": encoder.precision}
    for name, value in asked.items():
        if value not in ("auto", there[name]):
            wrong = f"{index.where} is an index with {name} {there[name]!r}, not {value!r}"
            raise ValueError(f"{wrong}; name another place for a new one.")
    if trained not in (None, networks.digest(encoder.net)):
        raise ValueError(f"{index.where} is an index of another training; name another place for a new one.")
