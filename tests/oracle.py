"""The weights by brute force, in NumPy and float64: every pair of pixels, written from the formulas alone."""

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.signal import fftconvolve
from scipy.special import logsumexp


def regions_of(labels):
    """Labels [H, W] to regions [max, H, W], among them those that are absent."""
    ids = np.arange(1, max(int(labels.max(initial=0)), 0) + 1)
    return (labels[None] == ids[:, None, None]).astype(np.float64)


def distances(regions, lmbda, ks):
    """d_i [N, H, W] of regions [N, H, W]."""
    n, h, w = regions.shape
    y, x = (index.ravel() for index in np.indices((h, w)))
    dy, dx = abs(y[:, None] - y[None]), abs(x[:, None] - x[None])
    log_kernel = np.where(np.maximum(dy, dx) <= ks // 2, -(dy + dx) / lmbda, -np.inf)
    out = np.full((n, h * w), np.inf)
    for region, d in zip(regions.reshape(n, h * w), out, strict=True):
        inside = region > 0
        if inside.any():
            with np.errstate(divide="ignore"):
                d[:] = -lmbda * logsumexp(log_kernel[:, inside] + np.log(region[inside]), axis=1)
    return out.reshape(n, h, w)


# What the exponent of the border term squares, from distances [N, H, W] in ascending order.
BOTH = {
    "second_nearest": lambda d: d[0] + d[1] if len(d) > 1 else np.full(d.shape[1:], np.inf),
    "farthest": lambda d: d[0] + d[-1],
}
EVERY_INSTANCE = ("farthest",)  # an id that is absent makes the term 0


def weights(d, foreground, *, border, bws, fds, bwf, fbr):
    """The weights [H, W] of distances d [N, H, W]."""
    if len(d) == 0:
        return np.where(foreground, 1.0, fbr)
    both = BOTH[border](np.sort(d, axis=0))
    fd = np.exp(-(d**2) / (2 * fds**2)).sum(axis=0)
    return np.where(foreground, 1.0, fbr + (1 - fbr) * fd + bwf * np.exp(-(both**2) / (2 * bws**2)))


def weight_map(labels, *, lmbda, ks, **settings):
    """The weights [H, W] of labels [H, W] with small ids."""
    return weights(distances(regions_of(labels), lmbda, ks), labels > 0, **settings)


def class_weight_map(
    labels, classes, ignore, *, distance, border, bws, fds, bwf, fbr, lmbda, ks, falloff="sum", **others
):
    """The weights [H, W] by class and without what is to be ignored; either may be None."""
    assert falloff == "sum" and not any(value for value in others.values() if value != "none")
    classes = np.ones_like(labels) if classes is None else classes
    ids = np.where(classes > 0, labels, 0)
    ids[np.zeros(ids.shape, dtype=bool) if ignore is None else ignore] = 0
    present = np.unique(ids[ids > 0])
    bordered = border not in EVERY_INSTANCE or present.max(initial=0) == len(present)
    weight = np.full(ids.shape, float(fbr))
    for c in np.unique(classes[ids > 0]):
        of_class = np.where(classes == c, ids, 0)
        masks = of_class == np.unique(of_class[of_class > 0])[:, None, None]
        if distance == "euclidean":
            d = np.array([distance_transform_edt(~mask) for mask in masks])
        else:
            d = distances(masks, lmbda, 2 * max(ids.shape) if ks is None else ks)
        factor = bwf if bordered else 0
        background = np.zeros(ids.shape, dtype=bool)
        weight += weights(d, background, border=border, bws=bws, fds=fds, bwf=factor, fbr=fbr) - fbr
    weight[ids > 0] = 1
    return weight if ignore is None else np.where(ignore, 0, weight)


def frequency_balance(kinds, ignore):
    """w_c of each pixel: N / (K n) for the n pixels of its kind, of K kinds and N pixels that count."""
    counted = kinds[~ignore]
    out = np.zeros(kinds.shape)
    for kind in np.unique(counted):
        out[kinds == kind] = counted.size / (len(np.unique(counted)) * (counted == kind).sum())
    return out


def terms_weight_map(
    labels, classes, ignore, foreground, *, distance, border, falloff, balance, border_everywhere, bws, fds,
    bwf, fbr, lmbda, ks,
):  # fmt: skip
    """The weights [H, W] of all published terms; distances that are finite everywhere."""
    ids = np.where(ignore | (classes <= 0), 0, labels)
    foreground = (ids > 0 if foreground is None else foreground) & ~ignore
    fall, border_sum = np.zeros(ids.shape), np.zeros(ids.shape)
    present = np.unique(ids[ids > 0])
    bordered = border not in EVERY_INSTANCE or present.max(initial=0) == len(present)
    for c in np.unique(classes[ids > 0]):
        of_class = np.where(classes == c, ids, 0)
        masks = of_class == np.unique(of_class[of_class > 0])[:, None, None]
        if distance == "euclidean":
            d = np.array([distance_transform_edt(~mask) for mask in masks])
        else:
            d = distances(masks, lmbda, 2 * max(ids.shape) if ks is None else ks)
        gaussians = np.exp(-(d**2) / (2 * fds**2))
        if falloff == "sum":
            fall += gaussians.sum(axis=0)
        elif falloff == "nearest":
            fall += np.exp(-(d.min(axis=0) ** 2) / (2 * fds**2))
        both = BOTH[border](np.sort(d, axis=0))
        border_sum += bordered * bwf * np.exp(-(both**2) / (2 * bws**2))
    one, zero = np.ones(ids.shape), np.full(ids.shape, float(fbr))
    if balance == "frequency":
        one = zero = frequency_balance(np.where(foreground, np.maximum(classes, 0) + 1, 0), ignore)
    weight = np.where(foreground, one, zero + (1 - fbr) * fall)
    weight += np.where(foreground & (not border_everywhere), 0, border_sum)
    return np.where(ignore, 0, weight)


def region_weight_map(masks, *, lmbda, ks, **settings):
    """The weights [H, W] of masks [N, H, W]."""
    return weights(distances(masks, lmbda, ks), (masks > 0).any(axis=0), **settings)


def one_pixel_weights(labels, *, border, bws, fds, bwf, fbr, ks):
    """The weights of labels [H, W] whose instances have one pixel each: their distance is city-block.

    By sums over offsets, so that many instances are no trouble; "second_nearest" only.
    """
    assert border == "second_nearest"
    r = ks // 2
    indicator = (labels > 0).astype(np.float64)
    offset = abs(np.arange(-r, r + 1))
    fd = fftconvolve(indicator, np.exp(-((offset[:, None] + offset) ** 2) / (2 * fds**2)), mode="same")
    near, second = np.full(labels.shape, np.inf), np.full(labels.shape, np.inf)
    far_enough = min(r, 12)
    padded = np.pad(indicator, far_enough)
    for dy in range(-far_enough, far_enough + 1):
        for dx in range(-far_enough, far_enough + 1):
            y, x = far_enough + dy, far_enough + dx
            there = padded[y : y + labels.shape[0], x : x + labels.shape[1]] > 0
            d = np.where(there, abs(dy) + abs(dx), np.inf)
            second = np.minimum(second, np.maximum(near, d))
            near = np.minimum(near, d)
    assert far_enough == r or second.max() <= far_enough
    weight = fbr + (1 - fbr) * fd + bwf * np.exp(-((near + second) ** 2) / (2 * bws**2))
    return np.where(labels > 0, 1.0, weight)
