"""Settings as functions take them: an object, a preset, single ones."""

from __future__ import annotations

import functools

import torch

from .settings import (
    BY_PRESET,
    DEFAULT_PRESET,
    DEFAULTS,
    NAMES,
    PRESET_OF_VOLUMES,
    WeightSettings,
    check_preset,
    checked_values,
    spacing_error,
)

_DEFAULT_VALUES = tuple(None if name in BY_PRESET else value for name, value in DEFAULTS.items())


def _values_of_preset(preset: str | None, spatial_dims: int, *single) -> tuple:
    """The settings in the order of `NAMES`: single ones, and the preset's where they are None."""
    if preset is None:
        preset = DEFAULT_PRESET if spatial_dims == 2 else PRESET_OF_VOLUMES
    chosen = check_preset(preset)
    values = checked_values(
        *[
            chosen[name] if value is None and name in BY_PRESET else value
            for name, value in zip(NAMES, single, strict=True)
        ]
    )
    return spatial_values(values, spatial_dims)


_remembered_values = functools.lru_cache(1024, typed=True)(_values_of_preset)


def settings_values(settings: WeightSettings | None, preset: str | None, spatial_dims: int, *single) -> tuple:
    """The settings in the order of `NAMES` for images or volumes, see `spatial_values`.

    From an object, or from a preset and single ones.
    """
    if settings is None:
        if torch.compiler.is_compiling():
            return _values_of_preset(preset, spatial_dims, *single)
        try:
            return _remembered_values(preset, spatial_dims, *single)
        except TypeError:  # of a wrong type, perhaps of one without a hash
            return _values_of_preset(preset, spatial_dims, *single)
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
    return spatial_values(settings.values, spatial_dims)


def spatial_values(values: tuple, spatial_dims: int) -> tuple:
    """The settings in the order of `NAMES` for images or volumes: a spacing that is the same along all axes
    becomes sigmas in pixels.

    Raises:
        ValueError: LogConv distances in volumes, or a spacing of other axes.
    """
    if spatial_dims == 2 and values[-1] is None:
        return values
    settings = dict(zip(NAMES, values, strict=True))
    spacing = settings["spacing"]
    if spatial_dims == 3 and settings["distance"] == "logconv":
        raise ValueError(
            "volumes have exact distances alone, for LogConv's are about city-block, the worse the more axes "
            "there are: take distance='euclidean', or a preset that has it, such as 'unet2019'"
        )
    if spacing is not None:
        if len(spacing) != spatial_dims:
            raise spacing_error(spatial_dims, spacing)
        if len(set(spacing)) == 1:
            settings |= dict(spacing=None, bws=settings["bws"] / spacing[0], fds=settings["fds"] / spacing[0])
    return tuple(settings.values())


def _are_defaults(single: tuple) -> bool:
    try:
        return single == _DEFAULT_VALUES
    except (ValueError, RuntimeError):  # an array, or a tensor, of several values
        return False
