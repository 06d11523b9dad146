"""Writes tests/golden/evaluation.json: small inputs and the metrics that numpy and scipy compute.

    python scripts/make_evaluation_golden.py

Each metric is computed as defined in its paper, by other methods than src/atelier/evaluation uses
(scipy's matrix square root, full distance matrices, numpy.quantile).
"""

import json
import pathlib

import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist


def frechet(a, b):
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(np.trace(sqrtm(s1 @ s2)))
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(s1) + np.trace(s2) - 2 * root


def unbiased_mmd(kernel, a, b):
    n, m = len(a), len(b)
    aa, bb = kernel(a, a), kernel(b, b)
    return (
        (aa.sum() - np.trace(aa)) / (n * (n - 1))
        + (bb.sum() - np.trace(bb)) / (m * (m - 1))
        - 2 * kernel(a, b).mean()
    )


def radii(x, k):
    return np.sort(cdist(x, x), axis=1)[:, k]


def precision_recall(real, fake, k):
    d = cdist(real, fake)
    return (d <= radii(real, k)[:, None]).any(0).mean(), (d <= radii(fake, k)[None]).any(1).mean()


def density_coverage(real, fake, k):
    inside = cdist(real, fake) < radii(real, k)[:, None]
    return inside.sum() / (k * len(fake)), inside.any(1).mean()


def sliced_wasserstein(a, b, directions):
    q = np.linspace(0, 1, 512)
    return np.mean(
        [np.mean(np.abs(np.quantile(a @ v, q) - np.quantile(b @ v, q))) for v in directions]
    )


def median_distance(x):
    d = np.sort(cdist(x, x)[~np.eye(len(x), dtype=bool)])
    return d[(len(d) - 1) // 2]


def gaussian_mmd(a, b, bandwidths):
    return np.mean(
        [
            unbiased_mmd(lambda x, y: np.exp(-(cdist(x, y) ** 2) / (2 * h * h)), a, b)
            for h in bandwidths
        ]
    )


def main():
    rng = np.random.default_rng(20)
    mixing = rng.standard_normal((6, 6))
    a = np.round(rng.standard_normal((40, 6)) @ mixing, 3)
    b = np.round(0.8 * rng.standard_normal((40, 6)) @ mixing + 0.4, 3)
    points_a = np.round(rng.standard_normal((30, 2)), 3)
    points_b = np.round(rng.standard_normal((50, 2)) * [1.5, 0.5] + [0.3, 0], 3)
    directions = rng.standard_normal((16, 2))
    directions = np.round(directions / np.linalg.norm(directions, axis=1, keepdims=True), 6)
    precision, recall = precision_recall(a, b, 3)
    density, coverage = density_coverage(a, b, 5)
    median = median_distance(points_b)
    golden = {
        "a": a.tolist(),
        "b": b.tolist(),
        "covariance_a": np.cov(a, rowvar=False).tolist(),
        "frechet": frechet(a, b),
        "kernel": unbiased_mmd(lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3, a, b),
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "points_a": points_a.tolist(),
        "points_b": points_b.tolist(),
        "directions": directions.tolist(),
        "sliced_wasserstein": sliced_wasserstein(points_a, points_b, directions),
        "mmd_at_half": gaussian_mmd(points_a, points_b, [0.5]),
        "mmd_by_median": gaussian_mmd(
            points_a, points_b, [median / 8, median / 4, median / 2, median]
        ),
    }
    path = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/evaluation.json"
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
