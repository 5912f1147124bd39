"""The settings of the weights: each one once, with its type, default, range, unit and meaning."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import Any, Literal

from .rules import (
    BALANCES,
    BORDERS,
    DISTANCES,
    FALLOFFS,
    BalanceName,
    BorderName,
    DistanceName,
    FalloffName,
)

# For editors, as in rules.py: those of `PRESETS`.
PresetName = Literal["unet2019", "unet2015", "deepflash2_offline", "deepflash2_logconv", "deepflash2"]

LARGEST_KS = 2**31 - 1
LARGEST_FACTOR = 1e30  # times any sum of an image is still a float32


def _setting(default, kind: str, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, "meaning": meaning})


@dataclasses.dataclass(frozen=True, eq=True)
class WeightSettings:
    """The settings of the weights. Equal settings are equal and hash alike; none can be changed.

    The defaults are those of `weight_map`; `WeightSettings.preset` has others by name.

    Args:
        distance: "logconv": about the city-block distance, by convolution. "euclidean": exact, unbounded.
        border: the border term: "second_nearest" as published for the U-Net, "farthest" as in deepflash2's
            real-time transform.
        falloff: what the background gets from how near the foreground is: "sum" adds up a term for each
            instance, "nearest" takes that of the nearest one (of each class), "none" leaves it out.
        balance: "none": 1 on the foreground, `fbr` far from it. "frequency": each class and the background
            the same in total, in every image; `fbr` is of no effect. Needs `falloff="none"`.
        border_everywhere: True adds the border term on the foreground, too. Needs exact distances.
        gaps: True puts a gap of background, one pixel wide, where instances touch, as `separate_touching`
            does: only what it leaves is foreground, while distances go to the whole instances.
        bws: border weight sigma in pixels, > 0.
        fds: foreground distance sigma in pixels, > 0.
        bwf: border weight factor, from 0 to 1e30.
        fbr: foreground background ratio, the weight of the far background, from 0 to 1e30.
        lmbda: decay length of the LogConv kernel in pixels, > 0. Of no effect with "euclidean".
        ks: size of the LogConv kernel in pixels, >= 1; an even one is taken one larger. None: unbounded. Of
            no effect with "euclidean".
        spacing: the length of a pixel along each axis, (sy, sx) or (sz, sy, sx), from 1e-30 to 1e30: the unit
            of `bws` and `fds`. None: 1 along each. LogConv distances have the same along all axes.

    Raises:
        TypeError: a setting is of the wrong type.
        ValueError: a setting is out of its range.

    Source: the names are deepflash2's (Griebel et al.).
    """

    distance: DistanceName = _setting("logconv", "rule", "how far away an instance is")  # noqa: RUF009
    border: BorderName = _setting("second_nearest", "rule", "the border term")  # noqa: RUF009
    falloff: FalloffName = _setting("sum", "rule", "what nearness to the foreground adds")  # noqa: RUF009
    balance: BalanceName = _setting("none", "rule", "the weights without that")  # noqa: RUF009
    border_everywhere: bool = _setting(False, "flag", "the border term on the foreground, too")
    gaps: bool = _setting(False, "flag", "a gap of background where instances touch")
    bws: float = _setting(10.0, "length", "sigma of the border term, pixels")
    fds: float = _setting(10.0, "length", "sigma of the distance to the foreground, pixels")
    bwf: float = _setting(10.0, "factor", "factor of the border term")
    fbr: float = _setting(0.1, "factor", "ratio of foreground to background: the least weight")
    lmbda: float = _setting(0.35, "length", "decay length of the convolution kernel, pixels")
    ks: int | None = _setting(
        73, "kernel_size", "size of the convolution kernel, pixels, or none for an unbounded one"
    )

    spacing: tuple[float, ...] | None = _setting(
        None, "spacing", "length of a pixel along each axis, the unit of the sigmas"
    )

    def __post_init__(self) -> None:
        values = checked_values(*(getattr(self, name) for name in NAMES))
        for name, value in zip(NAMES, values, strict=True):
            object.__setattr__(self, name, value)
        # Settings are looked up at every call.
        composed = self.falloff == "none" or self.balance != "none" or self.border_everywhere
        self.__dict__.update(_values=values, _hash=hash(values), _composed=composed)

    def __hash__(self) -> int:
        return self.__dict__["_hash"]

    @property
    def values(self) -> tuple[Any, ...]:
        """The settings in the order of `NAMES`."""
        return self.__dict__["_values"]

    def __reduce__(self) -> tuple:
        return type(self), self.values  # hashes of strings differ from process to process

    @property
    def composed(self) -> bool:
        """Whether these weights are put together from those of other settings, see backends/terms.py."""
        return self.__dict__["_composed"]

    @property
    def radius(self) -> int:
        """Of the window, in pixels: very large where it is unbounded."""
        return (LARGEST_KS if self.ks is None else self.ks) // 2

    @classmethod
    def preset(cls, name: PresetName, **changes) -> WeightSettings:
        """The settings of a preset, one of `PRESETS`. What is given beside it wins.

        Raises:
            TypeError, ValueError: as for the settings themselves; ValueError also for an unknown name.
        """
        check_names(changes)
        return cls(**{**check_preset(name), **changes})

    def replace(self, **changes) -> WeightSettings:
        """The same settings but for `changes`.

        Raises:
            TypeError, ValueError: as for the settings themselves.
        """
        check_names(changes)
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, str | float | int | None]:
        """The settings by name."""
        return dict(zip(NAMES, self.values, strict=True))

    def __repr__(self) -> str:
        """What tells them from the preset that is nearest to them."""
        nearest, changes = min(
            ((name, self._changes_of(name)) for name in PRESETS), key=lambda pair: len(pair[1])
        )
        listed = "".join(f", {name}={value!r}" for name, value in changes.items())
        return f"WeightSettings.preset({nearest!r}{listed})"

    def _changes_of(self, preset: str) -> dict[str, str | float | int | None]:
        theirs = {**DEFAULTS, **PRESETS[preset]}
        return {name: value for name, value in self.as_dict().items() if value != theirs[name]}


SETTINGS = {field.name: field for field in dataclasses.fields(WeightSettings)}
NAMES = tuple(SETTINGS)
DEFAULTS = {name: field.default for name, field in SETTINGS.items()}


def check_names(changes: Iterable[str]) -> None:
    """Raises TypeError for what is no setting."""
    for name in changes:
        if name == "spatial_dims":
            raise TypeError(
                "spatial_dims is no setting: it says what labels are, so give it to what takes them, beside "
                "the settings, as in weight_map(labels, settings=settings, spatial_dims=3)"
            )
        if name not in SETTINGS:
            raise TypeError(f"{name} is no setting: there are {', '.join(SETTINGS)}")


def _preset(
    distance: DistanceName,
    border: BorderName,
    falloff: FalloffName,
    balance: BalanceName,
    gaps: bool,
    *,
    bws: float,
    bwf: float,
) -> dict[str, Any]:
    return dict(
        distance=distance, border=border, falloff=falloff, balance=balance, gaps=gaps, bws=bws, bwf=bwf
    )


# By name: what differs from the defaults or is named where a preset is chosen.
PRESETS: dict[str, dict[str, Any]] = {
    "unet2019": _preset("euclidean", "second_nearest", "nearest", "none", True, bws=6.0, bwf=50.0),
    "unet2015": _preset("euclidean", "second_nearest", "none", "frequency", False, bws=5.0, bwf=10.0),
    "deepflash2_offline": _preset("euclidean", "second_nearest", "sum", "none", False, bws=10.0, bwf=10.0),
    "deepflash2_logconv": _preset("logconv", "second_nearest", "sum", "none", False, bws=10.0, bwf=10.0),
    "deepflash2": _preset("logconv", "farthest", "sum", "none", False, bws=10.0, bwf=1.0),
}
DEFAULT_PRESET: PresetName = "deepflash2_logconv"  # the defaults
PRESET_OF_VOLUMES: PresetName = "deepflash2_offline"  # their default: the same with exact distances
OF_LABELS = ("falloff", "balance", "border_everywhere", "gaps")  # region masks have the defaults of these
RENAMED = {"unet": "deepflash2_offline", "unet_logconv": "deepflash2_logconv"}
BY_PRESET = tuple(PRESETS[DEFAULT_PRESET])  # what every preset names: where these are None, a preset chooses


# ------------------------------------------------------------------------------------------------- checks


def check_preset(name: str) -> dict[str, Any]:
    """The settings that a preset names.

    Raises:
        ValueError: there is none of that name.
    """
    if isinstance(name, str) and name in RENAMED:
        raise ValueError(
            f"preset {name!r} is now {RENAMED[name]!r}; the weights that the U-Net's authors published are "
            "'unet2019' and 'unet2015'"
        )
    if not isinstance(name, str) or name not in tuple(PRESETS):
        raise choice_error("preset", name, tuple(PRESETS))
    return PRESETS[name]


def check_rule(name: str, value: str) -> str:
    """The name of a row in the table of the setting `name`.

    Raises:
        ValueError: there is none of that name.
    """
    table = _RULES[name]
    if not isinstance(value, str) or value not in table:
        raise choice_error(name, value, table)
    return value


def check_length(name: str, value: float) -> float:
    """A length in pixels as a float.

    Raises:
        TypeError, ValueError: it is no number, or not finite and > 0.
    """
    value = _number(name, value)
    if not 0 < value < math.inf:
        raise _range_error(name, value, "> 0 (pixels)")
    return value


def check_factor(name: str, value: float) -> float:
    """A factor of a term as a float.

    Raises:
        TypeError, ValueError: it is no number, or not from 0 to `LARGEST_FACTOR`.
    """
    value = _number(name, value)
    if not 0 <= value <= LARGEST_FACTOR:
        raise _range_error(name, value, f">= 0 and at most {LARGEST_FACTOR:g}")
    return value


def check_kernel_size(name: str, value: int | None) -> int | None:
    """A kernel size in pixels as an int, or None for an unbounded one.

    Raises:
        TypeError, ValueError: it is no integer, or not from 1 to `LARGEST_KS`.
    """
    if value is None:
        return None
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise _type_error(name, value, "an integer")
        value = int(value)
    if not 1 <= value <= LARGEST_KS:
        raise ValueError(f"{name} must be a whole number of pixels from 1 to {LARGEST_KS}, got {value}")
    return value


def check_flag(name: str, value: bool) -> bool:
    """True or False, NumPy's among them.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise _type_error(name, value, "True or False")


SPACING_RANGE = (1e-30, 1e30)


def check_spacing(name: str, value: Sequence[float] | None) -> tuple[float, ...] | None:
    """The lengths of a pixel along each axis as floats, or None.

    Raises:
        TypeError, ValueError: they are no numbers in `SPACING_RANGE`, or not one for each of 2 or 3 axes.
    """
    if value is None:
        return None
    values = value
    if not isinstance(value, (tuple, list)):  # PyTorch 2.4 compiles neither a union here nor what follows
        values = value.tolist() if type(value).__module__ == "numpy" else value  # type: ignore[attr-defined]
        if not isinstance(values, Sequence) or isinstance(values, str | bytes):
            raise _type_error(name, value, "a sequence of numbers, one for each axis, or None")
    if len(values) not in (2, 3):
        raise ValueError(f"{name} must be two or three numbers, one for each axis, got {len(values)}")
    # A compiler takes index() of an integer as a constant: PyTorch 2.4's lists hold no symbolic numbers.
    values = [index(length) if type(length) is int else length for length in values]
    lengths = tuple([_number(name, length) for length in values])
    least, most = SPACING_RANGE
    for length in lengths:
        if not least <= length <= most:  # NaN compares false
            raise ValueError(f"{name} must be from {least:g} to {most:g} along each axis, got {length!r}")
    return lengths


def spacing_error(spatial_dims: int, spacing: Sequence[float]) -> ValueError:
    """Where there is not one number for each axis."""
    advice = "; for volumes, spatial_dims=3" if (spatial_dims, len(spacing)) == (2, 3) else ""
    return ValueError(
        f"spacing must be {spatial_dims} numbers, one for each axis, got {len(spacing)}: {spacing}{advice}"
    )


RULES: dict[str, dict[str, Any]] = {
    "distance": DISTANCES, "border": BORDERS, "falloff": FALLOFFS, "balance": BALANCES,
}  # fmt: skip
_RULES = {name: tuple(table) for name, table in RULES.items()}
_CHECK_OF_KIND: dict[str, Callable[[str, Any], Any]] = {
    "rule": check_rule,
    "length": check_length,
    "factor": check_factor,
    "kernel_size": check_kernel_size,
    "flag": check_flag,
    "spacing": check_spacing,
}
_CHECKS = tuple((name, _CHECK_OF_KIND[field.metadata["kind"]]) for name, field in SETTINGS.items())


def checked_values(*values) -> tuple:
    """The settings in the order of `NAMES`, checked, as plain str, float and int.

    Cheap when all is well, and plain enough for torch.compile to trace.

    Raises:
        TypeError, ValueError: as for `WeightSettings`.
    """
    checked = []
    for (name, check), value in zip(_CHECKS, values, strict=True):
        checked.append(check(name, value))
    distance, _, falloff, balance, border_everywhere, *_ = checked
    if balance == "frequency" and falloff != "none":
        raise ValueError(
            f"balance='frequency' goes with falloff='none', as in Ronneberger et al. 2015, got {falloff!r}"
        )
    spacing = checked[-1]
    if spacing is not None and distance == "logconv" and len(set(spacing)) > 1:
        raise ValueError(
            "LogConv distances count steps of pixels, so they know no unequal spacing: take "
            f"distance='euclidean', got spacing={spacing}"
        )
    if border_everywhere and distance != "euclidean":
        raise ValueError(
            f"border_everywhere=True needs exact distances: distance='euclidean', got {distance!r}"
        )
    return tuple(checked)


def _number(name: str, value: Any) -> float:
    if type(value) is float:
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # an integer beyond float's range
            return math.inf if value >= type(value)() else -math.inf
    raise _type_error(name, value, "a number")


def _type_error(name: str, value: Any, wanted: str) -> TypeError:
    kind = type(value).__name__
    if not isinstance(getattr(value, "shape", None), tuple):
        return TypeError(f"{name} must be {wanted}, got {value!r} of type {kind}")
    one = math.prod(value.shape) == 1
    advice = "pass its .item()" if one else "each call and each object has one value of it"
    return TypeError(f"{name} must be {wanted}, got a {kind} of the shape {tuple(value.shape)}: {advice}")


def choice_error(name: str, value, allowed: tuple[str, ...]) -> ValueError:
    """The error for a value that is not among those allowed."""
    return ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _range_error(name: str, value: float, allowed: str) -> ValueError:
    return ValueError(f"{name} must be a finite number {allowed}, got {value}")
