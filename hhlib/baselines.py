"""Codes without a hashing loss, from any vectors: random directions, principal components, ITQ, a classifier's answer.

Each is fitted to training vectors x (n, D) and returns a function that turns vectors (m, D) into (m, K) numbers whose
signs are the code, as a network's output is.
"""

from collections.abc import Callable

import faiss
import numpy as np
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from hhlib.common import check_bits, check_whole
from hhlib.data import Part, scale

Outputs = Callable[[np.ndarray], np.ndarray]


def pixels(part: Part, side: int = 32) -> np.ndarray:
    """The images themselves as vectors: (n, 3 * side * side) float32 in 0..1, scaled to `side` pixels."""
    found = [scale(part.batch(rows)[0], side).flatten(1) for rows in torch.arange(len(part)).split(1000)]
    return torch.cat(found).numpy().astype(np.float32) / 255


def lsh(x: np.ndarray, bits: int, *, seed: int = 0) -> Outputs:
    """Locality-sensitive hashing: on which side of K random planes through the mean a vector is.

    Two vectors at an angle a, seen from the mean, differ in a share a / pi of the bits (Charikar, STOC 2002).
    """
    mean = x.mean(axis=0)
    planes = np.random.default_rng(seed).normal(size=(x.shape[1], check_bits(bits))).astype(np.float32)
    return lambda y: (y - mean) @ planes


def pca_sign(x: np.ndarray, bits: int) -> Outputs:
    """The signs of the first K principal components: few bits carry most of the variance, the last hardly any."""
    n, D = x.shape
    if check_bits(bits) > min(n, D):
        raise ValueError(f"bits is {bits}, but {n} training vectors of {D} numbers have {min(n, D)} components.")
    pca = faiss.PCAMatrix(D, bits)
    pca.train(np.ascontiguousarray(x, dtype=np.float32))
    return lambda y: pca.apply(np.ascontiguousarray(y, dtype=np.float32))


def itq(x: np.ndarray, bits: int, *, iterations: int = 50, starts: int = 5, seed: int = 0) -> Outputs:
    """Iterative quantisation: principal components, rotated so that they are near corners of the cube (-1, +1)^K.

    With V the components and R a rotation, ||B - V R||^2 is lowered by turns: B = sgn(V R), then the best R for this B;
    the best of several random starts is kept. Gong and Lazebnik, "Iterative Quantization: A Procrustean Approach to
    Learning Binary Codes", CVPR 2011. (Written out because faiss' ITQ, 1.15, came no nearer to the corners than the
    components alone, even where they can be reached.)
    """
    check_whole("starts", starts, 1)
    components, rng, rotations = pca_sign(x, bits), np.random.default_rng(seed), []
    V = components(x)  # (n, K)
    for _ in range(starts):
        R = np.linalg.qr(rng.normal(size=(bits, bits)))[0]  # (K, K)
        for _ in range(iterations):
            R, _ = orthogonal_procrustes(V, np.where(V @ R >= 0, 1.0, -1.0))
        rotations.append(R)
    best = min(rotations, key=lambda R: np.square(np.abs(V @ R) - 1).sum())
    return lambda y: components(y) @ best


def class_number(x: np.ndarray, labels: np.ndarray) -> Outputs:
    """A linear classifier's answer in binary: ceil(log2 C) bits (logistic regression, scikit-learn).

    All images given the same class share a code, so mAP is as good as the classifier, and nothing tells two of them
    apart. `labels` (n, C) must have one label each.
    """
    return answer(classifier(x, labels), np.shape(labels)[1])


def classifier(x: np.ndarray, labels: np.ndarray) -> Pipeline:
    """The classifier of `class_number`, fitted. ValueError unless each row of `labels` (n, C) has one label."""
    labels = np.asarray(labels)
    if (np.count_nonzero(labels, axis=1) != 1).any():
        raise ValueError("labels must give each image exactly one class, but some have none or several.")
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, labels.argmax(axis=1))


def answer(model: Pipeline, classes: int) -> Outputs:
    """What a fitted `classifier` of so many classes answers, as in `class_number`."""
    bits = max(1, (classes - 1).bit_length())
    return lambda y: np.where(np.asarray(model.predict(y))[:, None] >> np.arange(bits) & 1, 1.0, -1.0)
