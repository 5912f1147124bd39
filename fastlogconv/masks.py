"""Label images before training: ridges between touching instances, and the exact weights.

NumPy in and out. What deepflash2 (Griebel et al.) computes with one dilation of the whole image for each
touching instance, and one distance transform of the whole image for each instance, is native code here.
"""

from __future__ import annotations

import numpy as np
import torch

from . import ridges
from .arrays import plain_array
from .backends import c_interface, native
from .errors import LARGEST_CLASS, LARGEST_HALF_IDS, LARGEST_ID, half_error, label_error
from .settings import WeightSettings, check_spacing, spacing_error


def preprocess_mask(
    clabels=None,
    instlabels=None,
    ignore=None,
    remove_overlap: bool = True,
    n_dims: int = 2,
    fbr: float = 0.1,
    *,
    spatial_dims: int | None = None,
) -> np.ndarray:
    """Class labels with a ridge of background, one or two pixels wide, between touching instances of a class.

    Which instances give way: those whose id a 3x3 grey closing of the class's instance ids writes where
    another one (or background) was. All others are drawn; then these, by ascending id, but for the pixels
    that touch (8 neighbours) what was drawn of the class before. In volumes the closing is 3x3x3 and 26
    neighbours count: a rule of ours, for deepflash2 has none, which needs SciPy where there are no instances.

    Args:
        clabels: class labels [H, W] or, with `spatial_dims=3`, [D, H, W], whole numbers from 0 (background)
            to 2**31 - 1. None: one class, 1.
        instlabels: instance labels of that shape, whole numbers of any size; 0 and below are background.
            None: the components of each class (4 neighbours, in volumes 6). True: `clabels` holds the
            instance labels.
        ignore: bool of that shape or None; checked, of no effect on the labels.
        remove_overlap: False leaves the class labels as they are, without ridges.
        n_dims: deepflash2's name of `spatial_dims`.
        fbr: of no effect; accepted because deepflash2 does.
        spatial_dims: 2 for images, 3 for volumes; None: `n_dims`.

    Each is a NumPy array of any bool, integer or floating dtype and any strides, or what `np.asarray` takes;
    zarr and h5py arrays are read whole.

    Returns:
        int32, of the shape of the labels.

    Raises:
        TypeError: a dtype is none of these, or `ignore` is not bool.
        ValueError: neither labels given; shapes that differ or are of another rank; classes that are
            negative, fractional or not finite; instance labels that are fractional or not finite; other dims.
        RuntimeError: the native library was not built.

    Source: deepflash2 (Griebel et al.).
    """
    dims = _dims_of(n_dims, spatial_dims)
    classes, instances, _ = _read_labels(clabels, instlabels, ignore, dims)
    if remove_overlap:
        return _class_labels(instances, classes, dims)
    if instances is not None:
        _check_instances(instances)
    return classes.astype(np.int32) if classes is not None else (instances > 0).astype(np.int32)


def calculate_weights(
    clabels=None,
    instlabels=None,
    ignore=None,
    n_dims: int = 2,
    bws: float = 10,
    fds: float = 10,
    bwf: float = 10,
    fbr: float = 0.1,
    *,
    spatial_dims: int | None = None,
    spacing=None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The labels of `preprocess_mask`, and the weight and the sampling density of every pixel.

    The weight is 1 where the labels are > 0, elsewhere (so on the ridges too)

        fbr + (1 - fbr) fd(p) + bwf border(p)
        fd(p) = sum over instances i of exp(-d_i(p)^2 / (2 fds^2))
        border(p) = sum over classes of exp(-(near(p) + second(p))^2 / (2 bws^2))

    with d_i(p) the exact Euclidean distance to instance i, near and second the two smallest of
    them within a class. A class of one instance has no border term. Weight and density are 0 where `ignore`;
    instances below it count all the same. Distances are found around each instance, as far as its terms reach
    a float32's last bit; results do not depend on the number of threads (`torch.set_num_threads`).
    In volumes, and with a `spacing` that is not the same along all axes, that takes a transform for each
    instance in its surroundings: `weight_map(..., preset="unet2019")` takes one for all.

    Args:
        clabels, instlabels, ignore, n_dims, spatial_dims: as for `preprocess_mask`.
        bws: border weight sigma in pixels, > 0.
        fds: foreground distance sigma in pixels, > 0.
        bwf: border weight factor, from 0 to 1e30.
        fbr: foreground background ratio, the weight and density of the far background,
            from 0 to 1e30.
        spacing: the length of a pixel along each axis, (sy, sx) or (sz, sy, sx), then the unit of `bws` and
            `fds`; None: 1 along each. Ridges are as wide in pixels whatever it is.

    Returns:
        labels int32, weights float32, pdf float32 (1 where labels > 0, else `fbr`), each of the shape of the
        labels.

    Raises:
        TypeError, ValueError, RuntimeError: as for `preprocess_mask`; the first two also for a setting of the
            wrong type or out of its range.

    Source: deepflash2 (Griebel et al.), after Falk et al., "U-Net: deep learning for cell counting,
    detection, and morphometry", Nature Methods 16, 2019.
    """
    dims = _dims_of(n_dims, spatial_dims)
    lengths = check_spacing("spacing", spacing)
    if lengths is not None and len(lengths) != dims:
        raise spacing_error(dims, lengths)
    settings = WeightSettings(
        "euclidean", "second_nearest", bws=bws, fds=fds, bwf=bwf, fbr=fbr, spacing=lengths
    )
    classes, instances, ignore = _read_labels(clabels, instlabels, ignore, dims)
    if dims == 3 and instances is None:
        instances = ridges.components(classes)  # for ridges and weights
    labels = _class_labels(instances, classes, dims)
    if dims == 2 and lengths is None:
        weights = native.exact_weights(instances, classes, labels, settings)
    else:
        weights = ridges.weights(instances, classes, labels, settings)
    pdf = (labels > 0).astype(np.float32)
    if settings.fbr <= 1:
        np.maximum(pdf, np.float32(settings.fbr), out=pdf)
    else:
        pdf[labels == 0] = settings.fbr
    if ignore is not None:
        weights[ignore] = pdf[ignore] = 0
    return labels, weights, pdf


def ids_from_colours(image) -> np.ndarray:
    """Ids R + 256 G + 65536 B of a picture in colour, as COCO's panoptic segmentation codes them.

    Args:
        image: uint8 [..., H, W, 3], or [..., H, W, 4] with an alpha channel, which does not matter.

    Returns:
        int32 [..., H, W].

    Raises:
        TypeError: it is not uint8, or a masked array.
        ValueError: its last axis is none of channels.

    Source: the panoptic format of COCO (Kirillov et al., "Panoptic segmentation", 2019).
    """
    image = plain_array(image, "image")
    if image.ndim < 3 or image.shape[-1] not in (3, 4):
        raise ValueError(f"image must have the shape [..., H, W, 3 or 4], got {list(image.shape)}")
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8, 8 bits a colour, got {image.dtype}")
    red, green, blue = (image[..., i].astype(np.int32) for i in range(3))
    return red + 256 * green + 65536 * blue


# ------------------------------------------------------------------------------------------------- reading


def read_array(values, name: str, dims: int = 2) -> np.ndarray:
    """`values` as a native-endian array [H, W] of bool, integers or floats; zarr and h5py arrays are read.

    With `dims` 3 it is [D, H, W].

    Raises:
        TypeError, ValueError: it is of another dtype, masked, or of another rank.
    """
    if not isinstance(values, np.ndarray) and len(getattr(values, "shape", ())) > 0:
        values = values[:]
    array = plain_array(values, name)
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be bool, integer or floating-point up to float64, got {array.dtype}")
    if array.ndim != dims:
        wanted = "[H, W]" if dims == 2 else "[D, H, W]"
        raise ValueError(f"{name} must have the shape {wanted}, got {list(array.shape)}")
    return array


def read_ignore(ignore, shape: tuple[int, ...]) -> np.ndarray | None:
    """`ignore` as a bool array of the shape of the labels; None stays None.

    Raises:
        TypeError, ValueError: it is not bool, or of another shape.
    """
    if ignore is None:
        return None
    ignore = read_array(ignore, "ignore", len(shape))
    if ignore.dtype != np.bool_:
        raise TypeError(
            f"ignore must be bool, got {ignore.dtype}: pass ignore > 0, or labels == ignore_label"
        )
    if ignore.shape != shape:
        raise ValueError(f"ignore must have the shape {list(shape)} of the labels, got {list(ignore.shape)}")
    return ignore


def _dims_of(n_dims: int, spatial_dims: int | None) -> int:
    for name, value in (("n_dims", n_dims), ("spatial_dims", spatial_dims)):
        if value is not None and (isinstance(value, bool) or value not in (2, 3)):
            raise ValueError(f"{name} must be 2 (images) or 3 (volumes), got {value!r}")
    if spatial_dims is not None and n_dims not in (2, spatial_dims):
        raise ValueError(
            f"n_dims and spatial_dims are the same, give one of them, got {n_dims} and {spatial_dims}"
        )
    return int(n_dims if spatial_dims is None else spatial_dims)


def _class_labels(instances: np.ndarray | None, classes: np.ndarray | None, dims: int) -> np.ndarray:
    if dims == 3:
        if instances is not None:
            _check_instances(instances)
        return ridges.class_labels(instances, classes)
    _require_native()
    return native.class_labels(instances, classes)


def _read_labels(clabels, instlabels, ignore, dims):
    """(classes or None, instances or None, ignore or None): arrays that the native code can read."""
    if isinstance(instlabels, bool | np.bool_):
        clabels, instlabels = (None, clabels) if instlabels else (clabels, None)
    if clabels is None and instlabels is None:
        raise ValueError("give clabels (class labels), instlabels (instance labels), or both: both are None")
    classes = instances = None
    if instlabels is not None:
        instances = _readable(read_array(instlabels, "instlabels", dims))
        check_half(instances)
    if clabels is not None:
        classes = _readable(read_array(clabels, "clabels", dims))
        _check_classes(classes)
    if classes is not None and instances is not None and classes.shape != instances.shape:
        shapes = f"{list(classes.shape)} and {list(instances.shape)}"
        raise ValueError(f"clabels and instlabels must have one shape, got {shapes}")
    ignore = read_ignore(ignore, (instances if classes is None else classes).shape)
    return classes, instances, None if ignore is None else _readable(ignore)


def _readable(array: np.ndarray) -> np.ndarray:
    return array if c_interface.can_read(array) else np.ascontiguousarray(array)


def _check_classes(classes: np.ndarray) -> None:
    if classes.size == 0 or (classes.dtype.kind in "bu" and classes.itemsize <= 2):
        return
    least, most = classes.min().item(), classes.max().item()
    if not (least >= 0 and most <= LARGEST_CLASS):  # NaN compares false
        worst = most if least >= 0 else least
        raise ValueError(f"clabels must be whole numbers from 0 to 2**31 - 1, got {worst}")
    if classes.dtype.kind == "f":
        wrong = classes != np.floor(classes)
        if wrong.any():
            raise ValueError(f"clabels must be whole numbers from 0 to 2**31 - 1, got {classes[wrong][0]}")


def _check_instances(instances: np.ndarray) -> None:
    check_labels(instances)
    if instances.dtype.kind == "f":
        wrong = instances != np.floor(instances)
        if wrong.any():
            raise label_error(instances[wrong][0])


def check_labels(labels: np.ndarray) -> None:
    """Refuses labels that are NaN, infinite or above 2**63 - 1.

    Raises:
        ValueError: one of them is.
    """
    if labels.dtype.kind == "f":
        wrong = ~np.isfinite(labels)
        if labels.dtype != np.float16:  # all of those are smaller
            wrong |= labels >= float(LARGEST_ID + 1)
    elif labels.dtype == np.uint64:
        wrong = labels > LARGEST_ID
    else:
        return
    if wrong.any():
        raise label_error(labels[wrong][0])


def check_half(labels: np.ndarray) -> None:
    """Refuses float16 labels above those that it can tell apart.

    Raises:
        ValueError: one of them is.
    """
    if labels.dtype == np.float16:
        wrong = np.isfinite(labels) & (labels > LARGEST_HALF_IDS["float16"])
        if wrong.any():
            raise half_error(labels[wrong][0], "float16")


def _require_native() -> None:
    reason = native.why_not(torch.device("cpu"))
    if reason is not None:
        raise RuntimeError(f"preprocess_mask and calculate_weights need the native library: {reason}")
