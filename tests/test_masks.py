import types

import h5py
import mask_oracle
import numpy as np
import oracle
import pytest
import torch
import zarr
from cases import BORDERS, SHAPES, golden, scattered, two_cells
from tolerances import EUCLIDEAN

from fastlogconv import WeightSettings, calculate_weights, create_pdf, preprocess_mask, random_center
from fastlogconv.backends import native
from fastlogconv.masks import ids_from_colours

GOLDEN = dict(golden("masks"))
INSTANCES, CLASSES, IGNORE = GOLDEN["instances"], GOLDEN["classes"], GOLDEN["ignore"]
INPUTS = {
    "instances": dict(instlabels=INSTANCES),
    "classes": dict(clabels=CLASSES),
    "both": dict(clabels=CLASSES, instlabels=INSTANCES),
}
CASES = {
    "inst": INPUTS["instances"],
    "cls": INPUTS["classes"],
    "both": INPUTS["both"],
    "ign": dict(INPUTS["instances"], ignore=IGNORE),
    "p1": dict(INPUTS["instances"], bws=5, fds=3, bwf=4, fbr=0.25),
    "p2": dict(INPUTS["both"], bws=20, fds=25, bwf=10, fbr=0.05),
}
ALL_DTYPES = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]


def error(weights, expected):
    assert weights.shape == expected.shape
    assert np.isfinite(weights).all()
    return (abs(weights - expected) / np.maximum(1, expected)).max(initial=0)


def tissue(shape, count, rng):
    """Cells that touch: the nearest of `count` points, within 12 px."""
    yx = rng.integers(0, shape, (count, 2))
    pixels = np.stack(np.indices(shape), axis=-1)[:, :, None]
    d = np.linalg.norm(pixels - yx, axis=-1)
    return np.where(d.min(axis=-1) < 12, d.argmin(axis=-1) + 1, 0)


def random_labels(seed):
    """(clabels or None, instlabels or None), from one pixel to 90 x 90, from tissue to noise."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 90, 2) if seed % 4 else rng.integers(1, 6, 2))
    kind = seed % 3
    if kind == 0:
        instances = tissue(shape, rng.integers(1, 30), rng)
    elif kind == 1:
        instances = scattered(shape, rng.integers(0, 30), 12, rng)
    else:
        instances = rng.integers(0, rng.integers(2, 9), shape) * (rng.random(shape) < rng.random())
    instances = rng.permutation(2 * instances.max() + 2)[instances] * (instances > 0)
    classes = tissue(shape, 4, rng) // 2 + rng.integers(0, 2)
    return [(None, instances), (classes, None), (classes, instances)][rng.integers(3)]


# ----------------------------------------------------------------------- against deepflash2 and the oracle


@pytest.mark.parametrize("name", INPUTS)
def test_ridges_as_deepflash2(name):
    labels = preprocess_mask(**INPUTS[name])
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, GOLDEN[f"pre_{name}"])


def test_without_ridges_as_deepflash2():
    np.testing.assert_array_equal(preprocess_mask(**INPUTS["both"], remove_overlap=False), GOLDEN["pre_keep"])
    labels = preprocess_mask(instlabels=INSTANCES, remove_overlap=False)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, INSTANCES > 0)


@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf])
@pytest.mark.parametrize("remove_overlap", [True, False])
def test_instances_that_are_no_ids(wrong, remove_overlap):
    with pytest.raises(ValueError, match=r"labels must be finite whole numbers .*, got (0.5|nan|inf)"):
        preprocess_mask(instlabels=np.full((3, 4), wrong), remove_overlap=remove_overlap)


@pytest.mark.parametrize("name", CASES)
def test_weights_as_deepflash2(name):
    labels, weights, pdf = calculate_weights(**CASES[name])
    assert (labels.dtype, weights.dtype, pdf.dtype) == (np.int32, np.float32, np.float32)
    np.testing.assert_array_equal(labels, GOLDEN[f"cw_{name}_labels"])
    rows = GOLDEN["rows"]
    np.testing.assert_allclose(weights[rows], GOLDEN[f"cw_{name}_weights"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(pdf[rows], GOLDEN[f"cw_{name}_pdf"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(90))
def test_ridges_against_oracle(seed):
    clabels, instlabels = random_labels(seed)
    expected = mask_oracle.preprocess_mask(clabels, instlabels)
    np.testing.assert_array_equal(preprocess_mask(clabels, instlabels), expected)


def test_random_labels_have_ridges():
    cut = [(mask_oracle.preprocess_mask(*random_labels(seed)) > 0).sum() for seed in range(90)]
    whole = [(preprocess_mask(*random_labels(seed), remove_overlap=False) > 0).sum() for seed in range(90)]
    assert sum(c < w for c, w in zip(cut, whole, strict=True)) > 40


@pytest.mark.parametrize("seed", range(60))
def test_weights_against_oracle(seed):
    rng = np.random.default_rng(500 + seed)
    clabels, instlabels = random_labels(seed)
    shape = (instlabels if clabels is None else clabels).shape
    settings = dict(
        bws=float(np.exp(rng.uniform(-3, 4))),
        fds=float(np.exp(rng.uniform(-3, 4))),
        bwf=float(rng.choice([0, rng.uniform(0, 50)])),
        fbr=float(rng.choice([0, 1, rng.uniform(0, 3)])),
    )
    ignore = rng.random(shape) < 0.2 if seed % 2 else None
    expected = mask_oracle.calculate_weights(clabels, instlabels, ignore, **settings)
    labels, weights, pdf = calculate_weights(clabels, instlabels, ignore, **settings)
    np.testing.assert_array_equal(labels, expected[0])
    assert error(weights, expected[1]) <= EUCLIDEAN[torch.float32]
    np.testing.assert_allclose(pdf, expected[2], rtol=1e-6)


@pytest.mark.parametrize("sigma", [2, 10, 45])
@pytest.mark.parametrize("name", SHAPES)
def test_weights_of_shapes(name, sigma):
    instances = SHAPES[name]()
    expected = mask_oracle.calculate_weights(None, instances, bws=sigma, fds=sigma)
    labels, weights, _ = calculate_weights(None, instances, bws=sigma, fds=sigma)
    np.testing.assert_array_equal(labels, expected[0])
    assert error(weights, expected[1]) <= EUCLIDEAN[torch.float32]


def test_far_apart():
    """Distances of thousands of pixels, and instances of parts further apart than their terms reach."""
    instances = np.zeros((5000, 70), dtype=np.int64)
    instances[10:12, 5], instances[4990, 60:], instances[2000, :3] = 1, 1, 2
    instances[30, 30], instances[4000:4100, 20:40] = 3, 3
    for sigma in (3, 1500):
        _, expected, _ = mask_oracle.calculate_weights(None, instances, bws=sigma, fds=sigma)
        _, weights, _ = calculate_weights(None, instances, bws=sigma, fds=sigma)
        assert error(weights, expected) <= EUCLIDEAN[torch.float32]


# ------------------------------------------------------------------------------- the native functions alone


@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set():
    for seed in range(30):
        clabels, instlabels = random_labels(seed)
        expected = mask_oracle.calculate_weights(clabels, instlabels)
        labels, weights, _ = calculate_weights(clabels, instlabels)
        np.testing.assert_array_equal(labels, expected[0])
        assert error(weights, expected[1]) <= EUCLIDEAN[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_native_borders_and_precisions(border, dtype):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(5, 120, 2))
        _, instances = np.unique(np.append(0, tissue(shape, 2 + seed, rng)), return_inverse=True)
        instances = instances[1:].reshape(shape)
        settings = dict(border=border, bws=6.0 + 3 * seed, fds=5.0, bwf=7.0, fbr=0.2)
        expected = oracle.weights(mask_oracle.distances(instances), instances > 0, **settings)
        exact = WeightSettings("euclidean", **settings)
        weights = native.exact_weights(instances, None, None, exact, dtype)
        assert weights.dtype == dtype
        assert error(weights, expected) <= EUCLIDEAN[torch.float32 if dtype is np.float32 else torch.float64]


@pytest.mark.parametrize("seed", range(4))
def test_threads_do_not_change_a_bit(seed, with_threads):
    rng = np.random.default_rng(seed)
    instances = scattered((700, 150), 60, 25, rng)
    instances[3, 3:9], instances[600, 100:140], instances[640:660, 5] = 7, 7, 7  # parts far apart
    instances[100:420, 60:149] = 9  # wide, across what several threads take
    classes = tissue((70, 15), 5, rng).repeat(10, axis=0).repeat(10, axis=1) // 2
    for clabels in (None, classes):
        results = []
        for threads in (1, 2, 3, 5):
            with_threads(threads)
            results.append(calculate_weights(clabels, instances, bws=4, fds=5))
        for result in results[1:]:
            for one, other in zip(results[0], result, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(1, 1), (1, 37), (37, 1), (5, 7), (64, 64), (67, 129), (3, 513)], ids=str)
def test_writes_its_output_and_nothing_else(shape, monkeypatch, with_threads):
    margins = []

    def guarded_empty(shape, dtype):
        n, margin = int(np.prod(shape)), 4099
        buffer = np.full(n + 2 * margin, 12345, dtype=dtype)
        margins.extend((buffer[:margin], buffer[margin + n :]))
        return buffer[margin : margin + n].reshape(shape)

    dtypes = dict(float32=np.float32, float64=np.float64, int32=np.int32)
    monkeypatch.setattr(native, "np", types.SimpleNamespace(empty=guarded_empty, **dtypes))
    rng = np.random.default_rng(3)
    instances, classes = scattered(shape, 6, 9, rng), rng.integers(0, 3, shape)
    for threads in (1, 3):
        with_threads(threads)
        for labels in (
            dict(instlabels=instances),
            dict(clabels=classes),
            dict(clabels=classes, instlabels=instances),
        ):
            drawn, weights, _ = calculate_weights(**labels)
            assert (drawn < 12345).all() and (weights < 12345).all()
    assert len(margins) == 2 * 2 * 2 * 3
    assert all((margin == 12345).all() for margin in margins)


# ---------------------------------------------------------------------------------------- what it can read


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_every_dtype(dtype, name):
    labels = {key: value.astype(dtype) for key, value in INPUTS[name].items()}
    whole = {key: value.astype(np.int64) for key, value in labels.items()}
    for result, expected in zip(calculate_weights(**labels), calculate_weights(**whole), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("dtype", "largest"),
    [("i4", 2**31 - 1), ("i8", 10**8), ("i8", 2**63 - 1), ("u8", 2**62), ("f8", 2.0**62)],
)
def test_ids_of_any_size(dtype, largest):
    ids = largest - np.arange(15, dtype=dtype)[::-1] * np.dtype(dtype).type(largest // 20)
    ids[0] = 0
    instances = ids[INSTANCES]
    assert len(np.unique(instances)) == len(np.unique(INSTANCES))
    for clabels in (None, CLASSES):
        results = calculate_weights(clabels, instances), calculate_weights(clabels, INSTANCES)
        for result, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(result, expected)


def test_negative_ids_are_background():
    instances = np.where(INSTANCES > 0, INSTANCES.astype(np.int16), -3)
    for result, expected in zip(
        calculate_weights(None, instances), calculate_weights(None, INSTANCES), strict=True
    ):
        np.testing.assert_array_equal(result, expected)


def strided(array):
    buffer = np.full((3 * array.shape[0], 2 * array.shape[1] + 5), 99, dtype=array.dtype)
    buffer[1::3, 4:-1:2] = array
    return buffer[1::3, 4:-1:2]


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, dtype=np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[:] = array
    return view


def in_records(array):
    """A field of 3-byte records: the stride is no multiple of the item size."""
    records = np.zeros(array.shape, dtype=[("a", "u1"), ("label", "i2")])
    records["label"] = array
    return records["label"]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "strided": strided,
    "fortran": np.asfortranarray,
    "reversed": lambda array: np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1],
    "broadcast": lambda array: np.broadcast_to(array[:, 40:41], array.shape),
    "big endian": lambda array: array.astype(">i4"),
    "unaligned": lambda array: unaligned(array.astype(np.int32)),
    "in records": in_records,
    "read only": read_only,
    "list": np.ndarray.tolist,
    "tensor": torch.from_numpy,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(layout):
    arrange = LAYOUTS[layout]
    clabels, instlabels = arrange(CLASSES.astype(np.int16)), arrange(INSTANCES.astype(np.int16))
    ignore = (
        np.asarray(arrange(IGNORE.astype(np.int16))).astype(bool) if layout != "list" else IGNORE.tolist()
    )
    plain = [np.asarray(array).copy() for array in (clabels, instlabels, ignore)]
    before = [array.copy() for array in plain]
    results = calculate_weights(clabels, instlabels, ignore), calculate_weights(*plain)
    for result, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(result, expected)
        assert result.flags.c_contiguous
    for array, was in zip((clabels, instlabels, ignore), before, strict=True):
        np.testing.assert_array_equal(np.asarray(array), was)  # inputs are left alone


@pytest.mark.parametrize("kind", ["h5py", "zarr"])
def test_stored_arrays(kind, tmp_path):
    stored = {}
    if kind == "h5py":
        file = h5py.File(tmp_path / "masks.h5", "w")
    else:
        file = zarr.open_group(str(tmp_path / "masks.zarr"), mode="w")
    for name, array in (("clabels", CLASSES), ("instlabels", INSTANCES), ("ignore", IGNORE)):
        stored[name] = (
            file.create_dataset(name, data=array) if kind == "h5py" else file.create_array(name, data=array)
        )
        assert not isinstance(stored[name], np.ndarray)
    expected = calculate_weights(CLASSES, INSTANCES, IGNORE)
    for result, wanted in zip(calculate_weights(**stored), expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_instlabels_true_means_that_clabels_are_instances():
    np.testing.assert_array_equal(preprocess_mask(INSTANCES, instlabels=True), GOLDEN["pre_instances"])
    _, weights, _ = calculate_weights(INSTANCES, instlabels=True)
    np.testing.assert_array_equal(weights, calculate_weights(instlabels=INSTANCES)[1])
    np.testing.assert_array_equal(preprocess_mask(CLASSES, instlabels=False), GOLDEN["pre_classes"])


# ---------------------------------------------------------------------------------------- at the edges


@pytest.mark.parametrize("name", ["clabels", "instlabels"])
def test_empty_mask(name):
    labels, weights, pdf = calculate_weights(**{name: np.zeros((30, 40), dtype=np.int32)}, fbr=0.3)
    assert (labels == 0).all()
    assert (weights == np.float32(0.3)).all()
    assert (pdf == np.float32(0.3)).all()


def test_all_foreground():
    labels, weights, pdf = calculate_weights(np.full((9, 9), 3))
    assert (labels == 3).all() and (weights == 1).all() and (pdf == 1).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_no_pixel(shape):
    for result in calculate_weights(instlabels=np.zeros(shape, dtype=np.int32)):
        assert result.shape == shape


def test_everything_ignored():
    labels, weights, pdf = calculate_weights(CLASSES, INSTANCES, np.ones_like(IGNORE))
    np.testing.assert_array_equal(labels, GOLDEN["cw_both_labels"])
    assert (weights == 0).all() and (pdf == 0).all()


def test_labels_without_instances():
    """Where a class has no instance labels it is background, without a weight of its own."""
    instances = np.where(CLASSES == 1, INSTANCES, 0)
    expected = mask_oracle.calculate_weights(CLASSES, instances)
    labels, weights, _ = calculate_weights(CLASSES, instances)
    np.testing.assert_array_equal(labels, expected[0])
    assert (labels != 2).all()
    assert error(weights, expected[1]) <= EUCLIDEAN[torch.float32]
    labels, weights, _ = calculate_weights(CLASSES, np.zeros_like(CLASSES))
    assert (labels == 0).all() and (weights == np.float32(0.1)).all()


def test_one_instance_has_no_border():
    instances = np.zeros((40, 50), dtype=np.int32)
    instances[10:20, 10:20] = 5
    with_border, without = (calculate_weights(instlabels=instances, bwf=bwf)[1] for bwf in (10, 0))
    np.testing.assert_array_equal(with_border, without)


# ------------------------------------------------------------------------------------------------ bad input

SMALL = np.zeros((6, 7), dtype=np.int32)


def with_value(value, dtype=np.float64):
    labels = SMALL.astype(dtype)
    labels[2, 3] = value
    return labels


BAD = {
    "nothing": (dict(), ValueError, "both are None"),
    "true alone": (dict(instlabels=True), ValueError, "both are None"),
    "shapes": (dict(clabels=SMALL, instlabels=SMALL.T), ValueError, r"\[6, 7\] and \[7, 6\]"),
    "a stack": (dict(instlabels=SMALL[None]), ValueError, r"instlabels .* \[H, W\], got \[1, 6, 7\]"),
    "a line": (dict(clabels=[0, 1, 2]), ValueError, r"clabels .* got \[3\]"),
    "a number": (dict(clabels=3), ValueError, r"clabels .* got \[\]"),
    "complex": (dict(clabels=SMALL.astype(complex)), TypeError, "clabels .* complex128"),
    "text": (dict(instlabels=SMALL.astype(str)), TypeError, "instlabels .* <U"),
    "objects": (dict(instlabels=SMALL.astype(object)), TypeError, "instlabels .* object"),
    "negative class": (dict(clabels=with_value(-1, np.int8)), ValueError, "clabels .* got -1"),
    "fractional class": (dict(clabels=with_value(1.5)), ValueError, r"clabels .* got 1\.5"),
    "nan class": (dict(clabels=with_value(np.nan)), ValueError, "clabels .* got nan"),
    "infinite class": (dict(clabels=with_value(np.inf)), ValueError, "clabels .* got inf"),
    "huge class": (dict(clabels=with_value(2**31, np.int64)), ValueError, "clabels .* got 2147483648"),
    "fractional instance": (dict(instlabels=with_value(0.5)), ValueError, r"labels .* got 0\.5"),
    "nan instance": (dict(instlabels=with_value(np.nan)), ValueError, "labels .* got nan"),
    "huge instance": (dict(instlabels=with_value(2**63, np.uint64)), ValueError, r"labels .* 2\*\*63"),
    "ignore of another shape": (dict(clabels=SMALL, ignore=SMALL.T > 0), ValueError, r"ignore .* \[7, 6\]"),
    "ignore not bool": (dict(clabels=SMALL, ignore=SMALL), TypeError, "ignore must be bool, got int32"),
    "3-D": (dict(clabels=SMALL, n_dims=3), ValueError, r"clabels must have the shape \[D, H, W\], got \["),
    "4-D": (
        dict(clabels=SMALL, n_dims=4),
        ValueError,
        r"n_dims must be 2 \(images\) or 3 \(volumes\), got 4",
    ),
    "4 dims": (dict(clabels=SMALL, spatial_dims=4), ValueError, "spatial_dims must be 2"),
    "two dims": (
        dict(clabels=SMALL, n_dims=3, spatial_dims=2),
        ValueError,
        "the same, give one of them, got 3 and 2",
    ),
}


@pytest.mark.parametrize("function", [preprocess_mask, calculate_weights])
@pytest.mark.parametrize("name", BAD)
def test_bad_labels(name, function):
    arguments, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        function(**arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [(dict(bws=0), "bws"), (dict(fds=-1), "fds"), (dict(bwf=-1), "bwf"), (dict(fbr=float("nan")), "fbr")],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=f"{message} must be a finite number"):
        calculate_weights(SMALL, **settings)
    with pytest.raises(TypeError, match=f"{message} must be a number"):
        calculate_weights(SMALL, **dict.fromkeys(settings, "10"))


def test_without_the_native_library(monkeypatch):
    monkeypatch.setattr(native, "_load", lambda: "it was not built")
    for function in (preprocess_mask, calculate_weights):
        with pytest.raises(RuntimeError, match="it was not built"):
            function(SMALL)
    np.testing.assert_array_equal(preprocess_mask(SMALL, remove_overlap=False), SMALL)


# ------------------------------------------------------------------------------------ what files have in them


@pytest.mark.parametrize(
    "array, error, message",
    [
        (np.full((4, 4), 2**63, np.uint64), ValueError, "finite whole numbers up to .*9"),
        (np.full((4, 4), 2**63, "Q"), ValueError, "finite whole numbers up to"),
        (np.full((4, 4), 1e19), ValueError, "finite whole numbers up to"),
        (np.full((4, 4), np.nan), ValueError, "finite whole numbers .*nan"),
        (np.full((4, 4), 3000, np.float16), ValueError, "float16 must be at most 2048"),
        (np.ma.masked_array(np.ones((4, 4))), TypeError, r"masked array, .*pass instlabels.filled\(0\)"),
    ],
    ids=["uint64", "the other uint64", "float64", "nan", "float16", "masked"],
)
@pytest.mark.parametrize("remove_overlap", [True, False])
def test_instances_that_are_refused(array, error, message, remove_overlap):
    with pytest.raises(error, match=message):
        preprocess_mask(instlabels=array, remove_overlap=remove_overlap)
    with pytest.raises(error, match=message.replace("instlabels", "labels")):
        if array.dtype != np.float16:  # which can tell foreground from background
            create_pdf(array)
        else:
            calculate_weights(instlabels=array)


def test_masked_arrays_are_refused_anywhere():
    labels = np.ones((4, 4), int)
    for arguments in (
        dict(clabels=np.ma.masked_array(labels)),
        dict(instlabels=labels, ignore=np.ma.masked_array(labels > 0)),
    ):
        with pytest.raises(TypeError, match=r"must not be a masked array, .*\.filled\(0\)"):
            calculate_weights(**arguments)
    pdf = create_pdf(labels)
    with pytest.raises(TypeError, match="pdf must not be a masked array"):
        random_center(np.ma.masked_array(pdf), labels.shape)


@pytest.mark.parametrize("dtype", ["Q", ">u8", ">f4", "<i2"])
@pytest.mark.parametrize("flipped", [False, True])
def test_arrays_as_files_have_them(dtype, flipped):
    labels = two_cells().astype(dtype)
    plain = two_cells()
    if flipped:
        labels, plain = labels[::-1, ::-1], plain[::-1, ::-1].copy()
    results = (calculate_weights(instlabels=array) for array in (labels, plain))
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(create_pdf(labels), create_pdf(plain))


def test_ids_from_colours():
    image = np.zeros((2, 3, 4), np.uint8)
    image[0, 0], image[0, 1], image[1, 2] = (255, 255, 255, 0), (1, 2, 3, 9), (7, 0, 0, 255)
    ids = ids_from_colours(image)
    assert ids.dtype == np.int32
    assert ids.tolist() == [[2**24 - 1, 1 + 512 + 3 * 65536, 0], [0, 0, 7]]
    np.testing.assert_array_equal(ids_from_colours(np.stack([image[..., :3]] * 2)), np.stack([ids] * 2))
    with pytest.raises(TypeError, match="image must be uint8, 8 bits a colour, got uint16"):
        ids_from_colours(image.astype(np.uint16))
    for wrong in (image[..., 0], image[..., :2]):
        with pytest.raises(ValueError, match=r"image must have the shape \[..., H, W, 3 or 4\]"):
            ids_from_colours(wrong)
