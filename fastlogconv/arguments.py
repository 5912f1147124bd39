"""Settings as functions take them: an object, a preset, single ones."""

from __future__ import annotations

import functools

import torch

from .settings import (
    BY_PRESET,
    DEFAULT_PRESET,
    DEFAULTS,
    NAMES,
    WeightSettings,
    check_preset,
    checked_values,
)

_DEFAULT_VALUES = tuple(None if name in BY_PRESET else value for name, value in DEFAULTS.items())


def _values_of_preset(preset: str | None, *single) -> tuple:
    """The settings in the order of `NAMES`: single ones, and the preset's where they are None."""
    chosen = check_preset(DEFAULT_PRESET if preset is None else preset)
    return checked_values(
        *[
            chosen[name] if value is None and name in BY_PRESET else value
            for name, value in zip(NAMES, single, strict=True)
        ]
    )


_remembered_values = functools.lru_cache(1024, typed=True)(_values_of_preset)


def settings_values(settings: WeightSettings | None, preset: str | None, *single) -> tuple:
    """The settings in the order of `NAMES`, from an object, or from a preset and single ones."""
    if settings is None:
        if torch.compiler.is_compiling():
            return _values_of_preset(preset, *single)
        try:
            return _remembered_values(preset, *single)
        except TypeError:  # of a wrong type, perhaps of one without a hash
            return _values_of_preset(preset, *single)
    if not isinstance(settings, WeightSettings):
        raise TypeError(f"settings must be WeightSettings or None, got {type(settings).__name__}")
    if preset is not None:
        raise TypeError(
            f"give settings or a preset, not both, got settings and preset={preset!r}: "
            f"WeightSettings.preset({preset!r}) are its settings"
        )
    if not _are_defaults(single):
        pairs = zip(NAMES, single, _DEFAULT_VALUES, strict=True)
        given = [name for name, value, default in pairs if hasattr(value, "shape") or value != default]
        raise TypeError(
            f"give settings or single ones, not both, got settings and {', '.join(given)}: pass "
            f"settings.replace({given[0]}=...)"
        )
    return settings.values


def _are_defaults(single: tuple) -> bool:
    try:
        return single == _DEFAULT_VALUES
    except (ValueError, RuntimeError):  # an array, or a tensor, of several values
        return False
