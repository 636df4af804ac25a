"""Put codes into Milvus and search them there: an engine that also runs as a server and on several machines.

    python tools/engine.py load CODES [--paths PATHS.txt] [--uri runs/codes.db]
    python tools/engine.py search QUERIES.npy [--k 10] [--uri runs/codes.db] > found.csv

CODES is an .npy file of packed codes (n, bytes) uint8, or a folder that holds codes.npy and, if its pictures have
names, paths.txt, a line per code. `--uri` is a file, in which Milvus Lite keeps everything without a server, or the
address of a Milvus server, such as http://localhost:19530. Milvus Lite compares with every code; a server can also
build BIN_IVF_FLAT (`--index`). This installs Milvus Lite:

    python -m pip install --constraint constraints.txt '.[engine]'

Milvus Lite 2.5 is the last one with binary vectors: version 3 refuses them.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from shards import codes_of

COLLECTION = "codes"
BLOCK = 10_000  #: codes sent at a time
LONGEST = 4096  #: bytes of a path


def connect(uri: str):
    """A client of a Milvus server, or of a file. ModuleNotFoundError, in a sentence, if a package is missing."""
    try:
        from pymilvus import MilvusClient

        if "://" not in uri:
            import milvus_lite  # noqa: F401, its absence would be told less clearly
    except ModuleNotFoundError as error:
        how = "python -m pip install --constraint constraints.txt '.[engine]'"
        raise ModuleNotFoundError(f"{error.name} is not installed; this installs it: {how}") from None
    return MilvusClient(uri)


def load(client, codes: np.ndarray, paths: list[str] | None = None, *, index: str = "BIN_FLAT") -> None:
    """Fill the collection anew with codes (n, bytes) uint8, their rows and their paths (n, or none).

    ValueError if there are not as many paths as codes.
    """
    from pymilvus import DataType

    if paths is not None and len(paths) != len(codes):
        raise ValueError(f"there are {len(paths)} paths but {len(codes)} codes.")
    schema = client.create_schema(auto_id=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field("path", DataType.VARCHAR, max_length=LONGEST)
    schema.add_field("code", DataType.BINARY_VECTOR, dim=8 * codes.shape[1])
    how = client.prepare_index_params()
    cells = {"nlist": max(1, int(np.sqrt(len(codes))))} if index == "BIN_IVF_FLAT" else {}
    how.add_index("code", index_type=index, metric_type="HAMMING", params=cells)
    client.drop_collection(COLLECTION)
    client.create_collection(COLLECTION, schema=schema, index_params=how)
    for start in range(0, len(codes), BLOCK):
        rows = range(start, min(start + BLOCK, len(codes)))
        named = ({"row": i, "path": paths[i] if paths else "", "code": codes[i].tobytes()} for i in rows)
        client.insert(COLLECTION, list(named))


def search(client, queries: np.ndarray, *, k: int) -> list[list[tuple[int, int, str]]]:
    """The k nearest codes of each query, queries (q, bytes) uint8: (distance in bits, row, path), equal ones by row."""
    asked = [code.tobytes() for code in queries]
    how = dict(anns_field="code", limit=k, output_fields=["path"], search_params={"metric_type": "HAMMING"})
    found = client.search(COLLECTION, data=asked, consistency_level="Strong", **how)
    return [sorted((int(hit["distance"]), hit["id"], hit["entity"]["path"]) for hit in hits) for hits in found]


def main() -> int:
    """Load or search; the exit code is 2 for a request that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("load", "search"))
    parser.add_argument("codes", type=Path)
    parser.add_argument("--paths", type=Path, help="a text file, a path per code")
    parser.add_argument("--uri", default="runs/codes.db")
    parser.add_argument("--index", default="BIN_FLAT", choices=("BIN_FLAT", "BIN_IVF_FLAT"))
    parser.add_argument("--k", type=int, default=10)
    given = parser.parse_args()
    try:
        codes, client = codes_of(given.codes), connect(given.uri)
        if given.what == "load":
            names = given.paths or given.codes / "paths.txt"
            paths = names.read_text(encoding="utf-8").splitlines() if given.paths or names.is_file() else None
            load(client, codes, paths, index=given.index)
            print(f"{len(codes):,} codes are in {given.uri}.")
            return 0
        found = search(client, codes, k=given.k)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(["query", "place", "distance", "row", "path"])
    for query, hits in enumerate(found):
        lines.writerows([query, place, *hit] for place, hit in enumerate(hits, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
