"""What files tell of the pixels beside the ids: which axes there are, and how long a pixel is along each."""

import contextlib
import dataclasses
import math
import warnings
from xml.etree import ElementTree

IMAGEJ_AXES = "TZC"  # beside Y and X, in the order that ImageJ's files have
UNNAMED = "QIS"  # tifffile's names of axes for which the file has none
MICROMETRES = {
    **dict.fromkeys(("micron", "microns", "um", "\u00b5m", "\u03bcm", "\\u00B5m", "micrometer"), 1.0),
    **dict.fromkeys(("nm", "nanometer"), 1e-3),
    **dict.fromkeys(("\u00c5", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter"), 1e3),
    **dict.fromkeys(("cm", "centimeter"), 1e4),
    **dict.fromkeys(("inch", "in"), 25400.0),
    **dict.fromkeys(("m", "meter"), 1e6),
}
UNIT = "micron"  # as ImageJ writes it


@dataclasses.dataclass(frozen=True)
class Grid:
    """`axes`: TZCYX, in the file's order, Q for those without a name. `lengths`: by axis, in `unit`.

    `calibrated`: they are those of a microscope (ImageJ, OME), not of a printer.
    """

    axes: str
    lengths: dict[str, float] = dataclasses.field(default_factory=dict)
    unit: str = ""
    calibrated: bool = False

    def along(self, axes):
        """The lengths along these axes, to six digits (1 and not 0.99999994); None where one is not told."""
        if any(axis not in self.lengths for axis in axes):
            return None
        return tuple(float(f"{self.lengths[axis]:.6g}") for axis in axes)

    def spacing(self, axes, asked):
        """(spacing or None, what to say of it) for these axes, as asked for: by "file" or by "pixels".

        Raises:
            ValueError: "file", and the file does not tell lengths; or it tells some of them alone.
        """
        lengths = self.along(axes)
        told = f"{numbers(lengths)} {self.unit}" if lengths else "none"
        if asked == "file":
            if lengths is None or self.unit != UNIT:
                raise ValueError(
                    f"--spacing file: the file tells {told} for {', '.join(axes)}, no lengths in micrometres "
                    "or what they could be told from; give numbers"
                )
            return lengths, f"spacing {told}, from the file"
        known = [axis for axis in axes if axis in self.lengths]
        if lengths is None and known and self.calibrated:
            told = f"{numbers(self.along(known))} {self.unit} along {', '.join(known)}"
            missing = ", ".join(axis for axis in axes if axis not in known)
            raise ValueError(
                f"the file tells {told} and nothing along {missing}: --spacing with {len(axes)} numbers says "
                "what they are"
            )
        if lengths is None:
            return None, f"spacing {numbers([1] * len(axes))}, for the file tells none: --spacing gives one"
        shortest = min(lengths[-2:])
        spacing = tuple(float(f"{length / shortest:.6g}") for length in lengths)
        return spacing, f"spacing {numbers(spacing)}, as the file tells {told}"


def numbers(lengths):
    return " ".join(f"{length:g}" for length in lengths)


def told_lengths(told):
    """({axis: length}, unit) of {axis: (length, unit)}: in micrometres where that is known."""
    told = {axis: (length, unit) for axis, (length, unit) in told.items() if is_length(length)}
    if all(unit in MICROMETRES for _, unit in told.values()):
        return {axis: length * MICROMETRES[unit] for axis, (length, unit) in told.items()}, UNIT
    units = {unit for _, unit in told.values()}
    return (
        ({axis: length for axis, (length, _) in told.items()}, units.pop()) if len(units) == 1 else ({}, "")
    )


def is_length(value):
    return is_number(value) and value > 0


def is_number(value):
    return isinstance(value, int | float) and math.isfinite(value)


def grid_of(tif, axes):
    """The `Grid` of an open tifffile.TiffFile, by ImageJ or OME; without lengths where they are bad."""
    with contextlib.suppress(ElementTree.ParseError, ValueError, TypeError):
        if tif.is_ome:
            return Grid(axes, *told_lengths(told_by_ome(tif.ome_metadata)), calibrated=True)
        return Grid(
            axes, *told_lengths(told_by_tags(tif)), calibrated=bool({"unit", "spacing"} & {*about(tif)})
        )
    return Grid(axes)


def told_by_ome(xml):
    pixels = next(
        (each for each in ElementTree.fromstring(xml).iter() if each.tag.rpartition("}")[2] == "Pixels"), {}
    )
    return {
        axis: (
            float(pixels.get(f"PhysicalSize{axis}", "nan")),
            pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m"),
        )
        for axis in "ZYX"
    }


def about(tif):
    """What ImageJ, or tifffile, wrote into the description of a file."""
    return tif.imagej_metadata if tif.is_imagej else (tif.shaped_metadata or ({},))[0]


def told_by_tags(tif):
    page, told, written = tif.series[0].keyframe, {}, about(tif)
    unit = written.get("unit") or {2: "inch", 3: "cm"}.get(tag(page, "ResolutionUnit"), "pixel")
    if unit != "pixel" or "unit" in written or "spacing" in written:
        for axis in "YX":
            told[axis] = per_pixel(tag(page, f"{axis}Resolution")), written.get(f"{axis.lower()}unit", unit)
    # ImageJ leaves a spacing of 1 out, and reads a negative one as if it were positive.
    depth = written.get("spacing", 1.0 if tif.is_imagej and "unit" in written else math.nan)
    if tif.is_imagej and is_number(depth) and depth < 0:
        warnings.warn(f"its spacing along Z is {depth:g}; taken for {-depth:g}, as ImageJ does", stacklevel=1)
        depth = -depth
    return {"Z": (depth, written.get("zunit", unit)), **told}


def tag(page, name):
    found = page.tags.get(name)
    return found and found.value


def per_pixel(resolution):
    """The length of a pixel from the fraction that tells how many there are in a unit."""
    numerator, denominator = resolution or (1, 1)
    return denominator / numerator if numerator else math.nan


# --------------------------------------------------------------------------------------------- arrangement


def arranged(labels, axes, spatial_dims):
    """(labels, their axes in the file's order): [Y, X] or [B, Y, X], in volumes with a Z before Y.

    `axes` are what the file tells, in the letters of tifffile. `spatial_dims` is None where it was not asked
    for: then these are images, and a stack along Z is refused.
    """
    if len(axes) != labels.ndim or "Y" not in axes or "X" not in axes:
        return labels, ""
    others = [i for i, axis in enumerate(axes) if axis not in "YX"]
    in_order = labels.transpose(*others, axes.index("Y"), axes.index("X"))
    names, sizes = [axes[i] for i in others], in_order.shape[: len(others)]
    listed = ", ".join(f"{a} {n}" for a, n in zip((*names, "Y", "X"), in_order.shape, strict=True))
    if spatial_dims == 3:
        return volumes(in_order, names, listed)
    if spatial_dims is None and any(a == "Z" and n > 1 for a, n in zip(names, sizes, strict=True)):
        raise ValueError(
            f"a stack of slices, for its axes are {listed}: --spatial-dims 3 weighs it as a volume, "
            "--spatial-dims 2 each slice by itself"
        )
    long = [i for i, n in enumerate(sizes) if n != 1]
    if len(long) > 1:
        raise ValueError(
            f"its axes are {listed}: only one of them beside Y "
            "and X may be longer than 1, a batch of images [H, W]; split the file along the others"
        )
    if not long and len(others) == 1 and others[0] < axes.index("Y"):
        long = [0]  # a batch of one image stays one
    return in_order.reshape(*(sizes[i] for i in long), *in_order.shape[-2:]), letters(names, long) + "YX"


def volumes(labels, names, listed):
    """(labels, axes in the file's order) of labels [..., Y, X] where one of the axes before Y is Z."""
    unnamed = [i for i, name in enumerate(names) if name in UNNAMED]
    depth = names.index("Z") if "Z" in names else unnamed[-1] if unnamed else None
    if depth is None:
        raise ValueError(
            f"its axes are {listed}, so there is no volume in it; where one of them is Z, say so with "
            'tifffile.imwrite(..., imagej=True, metadata={"axes": "ZYX"})'
        )
    names[depth] = "Z"
    kept = [i for i, n in enumerate(labels.shape[:-2]) if i == depth or n != 1]
    if len(kept) > 2:
        raise ValueError(
            f"its axes are {listed}: only one of them beside Z, Y and X may be longer than 1, a batch of "
            "volumes [D, H, W]; split the file along the others"
        )
    in_file = labels.reshape(*(labels.shape[i] for i in kept), *labels.shape[-2:])
    axes = letters(names, kept) + "YX"
    return in_file if kept[-1] == depth else in_file.swapaxes(0, 1), axes


def letters(names, chosen):
    return "".join(names[i] if names[i] in IMAGEJ_AXES else "Q" for i in chosen)
