"""How other code bases score the same list: for comparing with published numbers, not for use.

Codes are -1 and +1 (n, K), labels multi-hot (n, C); one query is sorted at a time, as in the originals. `evaluate`
agrees where no tie is cut or reordered. Written from the conventions, not from the code.
"""

import numpy as np


def deephash_pytorch(
    query_codes, query_labels, database_codes, database_labels, topk: int = -1, *, drop: bool = False, by: str = "found"
) -> float:
    """mAP as swuxyj/DeepHash-pytorch and the released HybridHash print it.

    An unstable sort puts ties in an arbitrary order; AP divides by the hits found; a query without hits counts 0.
    "All" is written topk = -1 and used as the end of a slice, which drops the image that is ranked last.

    Other code bases differ in two choices: thuml/HashNet (PyTorch) leaves queries without hits out of the mean
    (`drop`); open-metric-learning's AP divides by min(k, all relevant) (``by="reachable"``), the textbook's and
    trec_eval's by all relevant images (``by="all"``).
    """
    q, c, d, e = (np.asarray(part, float) for part in (query_codes, query_labels, database_codes, database_labels))
    if len(q) != len(c) or len(d) != len(e):
        raise ValueError(f"there are {len(q)} and {len(d)} codes but {len(c)} and {len(e)} rows of labels.")
    scores = []
    for code, label in zip(q, c, strict=True):
        relevant = e @ label > 0  # (n,)
        ranked = relevant[np.argsort(0.5 * (len(code) - d @ code))][:topk]
        ranks = np.flatnonzero(ranked) + 1.0
        total = {"found": len(ranks), "all": relevant.sum(), "reachable": min(len(ranked), relevant.sum())}[by]
        if total or not drop:
            scores.append((np.arange(1, len(ranks) + 1) / ranks).sum() / max(total, 1))
    return float(np.mean(scores)) if scores else 0.0
