"""Names and coefficient counts of lens models: what drivers write, and what OpenCV computes with.

`plumb_bob` and `rational_polynomial` are one formula of OpenCV, told apart by the number of
coefficients (5, 8, 12, 14); trailing zeros are not coefficients. `equidistant` (Kannala-Brandt) has
four.
"""

from __future__ import annotations

import re

from flow3r_ros.errors import CameraError

_RADIAL, _FISHEYE, _NONE, _INVERSE = "plumb_bob", "equidistant", "none", "inverse_brown_conrady"
_SPELLINGS: dict[str, str] = {
    **dict.fromkeys(
        (
            "none",
            "undistorted",
            "no_distortion",
            "distortion_none",
            "rectified",
        ),
        _NONE,
    ),
    **dict.fromkeys(
        (
            "",
            "pinhole",
            "perspective",
            "plumb_bob",
            "plumbbob",
            "radtan",
            "pinhole_radtan",
            "radial_tangential",
            "brown",
            "brown_conrady",
            "modified_brown_conrady",
            "opencv",
            "full_opencv",
            "opencv_radtan_k1k2p1p2",
            "rational_polynomial",
            "rational",
            "rational_polynomial_model",
            "thin_prism",
            "thin_prism_model",
            "tilted_model",
        ),
        _RADIAL,
    ),
    **dict.fromkeys(
        (
            "equidistant",
            "equi",
            "pinhole_equi",
            "fisheye",
            "opencv_fisheye",
            "kannala_brandt",
            "kannala_brandt4",
            "kannala_brandt_4",
            "kannalabrandt4",
            "kb4",
        ),
        _FISHEYE,
    ),
    _INVERSE: _INVERSE,
}
"""spelling, in small letters with underscores -> formula; `pinhole` and an empty name say nothing
about the lens, so their coefficients count as OpenCV's"""
KNOWN = ("none", "plumb_bob", "rational_polynomial", "equidistant")
"""names that `canonical` returns"""
LARGEST = {"plumb_bob": 1e3, "rational_polynomial": 1e5, "equidistant": 1e2}
"""coefficients beyond these belong to no lens (narrow lenses reach some hundred in k3, rational
fits some thousand)"""


def canonical(name: str, coefficients: tuple[float, ...]) -> tuple[str, tuple[float, ...]]:
    """(model, coefficients) as OpenCV takes them: model in `KNOWN`; 0, 4, 5, 8, 12 or 14 numbers.

    Raises CameraError for an unknown model, more coefficients than the model has, or coefficients
    that no lens has.
    """
    model = _SPELLINGS.get(re.sub(r"[\s\-]+", "_", name.strip().lower()))
    if model is None:
        raise CameraError(
            f"distortion model '{name}' is unknown",
            f"known: {', '.join(KNOWN)}, also as drivers spell them",
        )
    used = len(coefficients)
    while used and coefficients[used - 1] == 0.0:
        used -= 1
    given = tuple(float(value) for value in coefficients[:used])
    if model == _FISHEYE:
        if used > 4:
            raise CameraError(f"{name} takes 4 coefficients, got {used} that are not zero")
        return _checked(_FISHEYE, _padded(given, 4))
    if not used or model == _NONE:
        return _NONE, ()
    if model == _INVERSE:
        raise CameraError(
            f"{name} with coefficients is not one of the models that are undone",
            "rectify the images, or calibrate with OpenCV",
        )
    if used <= 5:
        return _checked("plumb_bob", _padded(given, 4 if len(coefficients) <= 4 else 5))
    if used > 14:
        raise CameraError(f"{name} takes at most 14 coefficients, got {used} that are not zero")
    count = next(count for count in (8, 12, 14) if used <= count)
    return _checked("rational_polynomial", _padded(given, count))


def _padded(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values + (0.0,) * (count - len(values))


def _checked(model: str, values: tuple[float, ...]) -> tuple[str, tuple[float, ...]]:
    largest = max(map(abs, values))
    if not largest <= LARGEST[model]:
        raise CameraError(
            f"a distortion coefficient of {largest:g} belongs to no lens", "calibrate again"
        )
    return model, values
