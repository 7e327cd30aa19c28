"""Numbers of the Flow3r project page (repository commit 1369a69, 2026-02-23), typed in: published
by the authors, not reproduced here."""

from __future__ import annotations

from typing import Any

DYNAMIC = ("rpe_trans_rmse", "rpe_rot_deg_rmse", "mse", "fscore@5")
STATIC = ("RTA@30", "AUC@30", "mse", "fscore@5")
METHODS = ("DUSt3R", "CUT3R", "VGGT", "pi3", "Flow3r")

_ROWS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "kinetics": (
        (0.063, 9.343, 0.366, 0.533),
        (0.027, 1.988, 0.303, 0.573),
        (0.038, 1.392, 0.347, 0.479),
        (0.023, 1.006, 0.267, 0.585),
        (0.018, 0.830, 0.256, 0.599),
    ),
    "epic": (
        (0.110, 8.492, 0.312, 0.528),
        (0.081, 4.709, 0.338, 0.493),
        (0.049, 3.025, 0.220, 0.617),
        (0.043, 3.025, 0.200, 0.620),
        (0.037, 2.729, 0.199, 0.622),
    ),
    "sintel": (
        (0.179, 15.166, 0.622, 0.271),
        (0.128, 1.998, 0.676, 0.217),
        (0.086, 1.220, 0.595, 0.311),
        (0.066, 1.122, 0.523, 0.317),
        (0.058, 0.920, 0.426, 0.404),
    ),
    "bonn": (
        (0.113, 6.384, 0.116, 0.800),
        (0.095, 6.349, 0.088, 0.899),
        (0.096, 6.021, 0.082, 0.884),
        (0.095, 6.240, 0.076, 0.905),
        (0.094, 6.262, 0.052, 0.954),
    ),
    "co3d": (
        (90.68, 68.11, 0.223, 0.783),
        (90.68, 68.11, 0.278, 0.737),
        (97.27, 87.62, 0.151, 0.874),
        (97.49, 90.53, 0.151, 0.874),
        (97.62, 90.41, 0.150, 0.876),
    ),
    "scannet": (
        (57.14, 31.56, 0.092, 0.831),
        (71.39, 42.30, 0.132, 0.740),
        (93.71, 71.37, 0.053, 0.931),
        (91.14, 69.39, 0.058, 0.930),
        (92.89, 71.00, 0.053, 0.943),
    ),
    "nrgbd": (
        (93.25, 76.04, 0.063, 0.865),
        (95.63, 76.90, 0.075, 0.808),
        (99.21, 93.13, 0.032, 0.964),
        (99.20, 90.40, 0.021, 0.983),
        (99.60, 94.40, 0.018, 0.992),
    ),
    "7scenes": (
        (76.59, 55.07, 0.170, 0.714),
        (81.15, 59.72, 0.183, 0.695),
        (86.51, 69.77, 0.182, 0.665),
        (87.69, 71.80, 0.169, 0.737),
        (91.66, 75.76, 0.092, 0.907),
    ),
}

CAUTIONS: dict[str, str] = {
    "7scenes": "Flow3r's MSE and f-score are uncertain: notes on the paper give .102 and .807, "
    "the project page .092 and .907",
    "co3d": "DUSt3R and CUT3R have identical pose numbers in the source, possibly a copy error",
    "epic": "VGGT and pi3 have the same RPE rotation in the source, possibly a copy error",
}


def published_rows(name: str) -> list[dict[str, Any]]:
    """Rows of the paper's table for a benchmark, each marked as published; empty where the paper
    has none."""
    keys = DYNAMIC if name in ("kinetics", "epic", "sintel", "bonn") else STATIC
    return [
        {"method": method, "published_not_reproduced": True, **dict(zip(keys, values, strict=True))}
        for method, values in zip(METHODS, _ROWS.get(name, ()), strict=False)
    ]
