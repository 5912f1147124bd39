"""What masks.py computes, in SciPy and float64, each step over the whole image or volume."""

import numpy as np
from scipy import ndimage


def by_class(clabels, instlabels):
    """(class, instance ids on that class, else 0) for each class, ascending."""
    if clabels is None:
        clabels = (instlabels > 0).astype(np.int64)
    for c in np.unique(clabels[clabels > 0]):
        here = clabels == c
        yield (
            c,
            ndimage.label(here)[0]
            if instlabels is None
            else np.where(here & (instlabels > 0), instlabels, 0),
        )


def preprocess_mask(clabels=None, instlabels=None):
    out = np.zeros((instlabels if clabels is None else clabels).shape, dtype=np.int32)
    for c, ids in by_class(clabels, instlabels):
        _, ranks = np.unique(np.append(0, ids), return_inverse=True)  # SciPy's filters compute in float64
        ranks = ranks[1:].reshape(ids.shape)
        dilated = ndimage.maximum_filter(ranks, size=3, mode="constant", cval=-1)
        closing = ndimage.minimum_filter(dilated, size=3, mode="constant", cval=ranks.max() + 1)
        candidates = np.unique(closing[closing != ranks])
        drawn = (ranks > 0) & ~np.isin(ranks, candidates)
        for rank in candidates:
            drawn |= (ranks == rank) & ~ndimage.binary_dilation(drawn, np.ones((3,) * drawn.ndim))
        out[drawn] = c
    return out


def distances(ids, spacing=None):
    """The Euclidean distance to each of the ids present: [N, ...]."""
    present = np.unique(ids[ids > 0])
    maps = [ndimage.distance_transform_edt(ids != i, sampling=spacing) for i in present]
    return np.array(maps).reshape(-1, *ids.shape)


def calculate_weights(
    clabels=None, instlabels=None, ignore=None, bws=10, fds=10, bwf=10, fbr=0.1, spacing=None
):
    labels = preprocess_mask(clabels, instlabels)
    fd, border = np.zeros(labels.shape), np.zeros(labels.shape)
    for _, ids in by_class(clabels, instlabels):
        d = np.sort(distances(ids, spacing), axis=0)
        fd += np.exp(-(d**2) / (2 * fds**2)).sum(axis=0)
        if len(d) > 1:
            border += np.exp(-((d[0] + d[1]) ** 2) / (2 * bws**2))
    weights = np.where(labels > 0, 1, fbr + (1 - fbr) * fd + bwf * border)
    pdf = np.where(labels > 0, 1, fbr)
    if ignore is not None:
        weights[ignore] = pdf[ignore] = 0
    return labels, weights, pdf
