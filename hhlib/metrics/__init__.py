"""Retrieval metrics of hashing, exact under ties: one pass over all pairs, and closed forms of what it counts.

Where code bases of the field differ, `evaluate` by default counts an image as relevant if it shares at least one label,
and divides AP@k by the relevant images *found* in the first k (the field's way; 0 where none is found). The field's mAP
depends on how a sort happened to order ties; `expected` is its mean over all orders.

Codes and labels are NumPy arrays, lists or torch tensors. Values that would give a silently wrong number are refused.
Once something has been evaluated, start processes with "spawn", not "fork": numba's threads (OpenMP) do not survive it.
"""

from hhlib.metrics import conventions
from hhlib.metrics.curves import hits_at, mean_distances, ndcg, ramap, within_radius
from hhlib.metrics.evaluation import chance, evaluate, leave_one_out_map
from hhlib.metrics.packing import hamming, pack_signs, unpack_signs
from hhlib.metrics.pairs import Counts, count
from hhlib.metrics.precision import DENOMINATORS, average_precision, harmonic
from hhlib.metrics.statistics import by_class, code_quality, compare, interval
