"""The data errors, worded once for every backend."""

from __future__ import annotations

import math

LARGEST_ID = 2**63 - 1
LARGEST_CLASS = 2**31 - 1
LARGEST_HALF_IDS = {"float16": 2**11, "bfloat16": 2**8}  # above, two whole numbers are one


def label_error(value: float) -> ValueError:
    """The error for a label that is no instance id: NaN, infinite, fractional, or above 2**63 - 1."""
    fraction = math.isfinite(value) and value != math.floor(value)
    advice = ": of an image or probabilities make a mask, and ids by binary_to_instances" if fraction else ""
    return ValueError(
        "labels must be finite whole numbers up to 2**63 - 1 (0 and below are background), "
        f"got {value}{advice}"
    )


def half_error(value: float, dtype: str) -> ValueError:
    """The error for a label above those that a half type can tell apart."""
    return ValueError(
        f"labels of {dtype} must be at most {LARGEST_HALF_IDS[dtype]}, above which it cannot tell "
        f"neighbouring ids apart, got {value:g}: pass labels of an integer type"
    )


def class_error(value: float) -> ValueError:
    """The error for a class label that is NaN, infinite, fractional, or above 2**31 - 1."""
    return ValueError(
        f"classes must be finite whole numbers up to 2**31 - 1 (0 and below are background), got {value}"
    )


def mask_error(value: float) -> ValueError:
    """The error for a region mask value that is no weight: negative, NaN or infinite."""
    return ValueError(f"masks must hold finite values >= 0 (0 is outside the region), got {value}")


def distance_error(value: float) -> ValueError:
    """The error for a value that is no distance: NaN or -inf."""
    return ValueError(f"distance must hold numbers or +inf (out of reach), neither NaN nor -inf, got {value}")
