"""Everything that is refused, and in which words, before anything is computed."""

import re
import warnings

import numpy as np
import pytest
import torch
from cases import BORDERS, DISTANCES

import fastlogconv
from fastlogconv import WeightSettings, checks, ops, weight_map
from fastlogconv.settings import BY_PRESET

LABELS = torch.zeros(2, 8, 9, dtype=torch.int32)
LABELS[:, 2, 3], LABELS[:, 5:7, 6] = 1, 2
MASKS = torch.zeros(2, 8, 9)
nan, inf = float("nan"), float("inf")


# The tensor of every function: what is passed, the error, its words.
TENSORS = [
    (np.zeros((8, 9)), TypeError, r"must be a torch.Tensor .*ndarray: pass torch.from_numpy\(array\)"),
    (np.ma.masked_array(np.zeros((8, 9))), TypeError, r"must be a torch.Tensor .*\(array.filled\(0\)\)"),
    (np.zeros((8, 9, 1)), TypeError, r"must be a torch.Tensor .*: pass torch.from_numpy\(array\)\[..., 0\]$"),
    ([[0, 1], [1, 0]], TypeError, r"must be a torch.Tensor .*got list: pass torch.as_tensor"),
    (None, TypeError, "must be a torch.Tensor .*got NoneType"),
    (torch.zeros(2, 8, 9, dtype=torch.complex64), TypeError, "must be bool, .*, got torch.complex64"),
    (torch.zeros(2, 8, 9, dtype=torch.float8_e4m3fn), TypeError, "must be bool, .*, got torch.float8_e4m3fn"),
    (torch.zeros(8), ValueError, r"must have the shape .*H, W.*, got \(8,\)"),
    (torch.zeros(()), ValueError, r"must have the shape .*H, W.*, got \(\)"),
    (torch.zeros(2, 1, 1, 8, 9), ValueError, r"must have the shape .*H, W.*, got \(2, 1, 1, 8, 9\)"),
    (torch.zeros(2, 8, 9, device="meta"), ValueError, "must be on cpu or cuda, got the meta device"),
    *[(torch.nested.nested_tensor([torch.zeros(8, 9), torch.zeros(7, 9)], layout=layout), TypeError,
       r"must be a tensor of one shape, got a nested tensor: pass its parts one by one, or \w+.to_padded")
      for layout in (torch.strided, torch.jagged)],
    (torch.ones(2, 8, 9).to_sparse(), TypeError, r"must be dense, got .*sparse_coo: pass \w+.to_dense\(\)"),
]  # fmt: skip

FUNCTIONS = {
    "labels": fastlogconv.weight_map,
    "masks": fastlogconv.region_weight_map,
    "distance": fastlogconv.distance_to_weight,
    "input": lambda input: fastlogconv.separable_conv2d(input, 1.0, 3),
}

SIGMA = "must be a finite number > 0"
FACTOR = "must be a finite number >= 0"
SETTINGS = [
    *[(name, value, ValueError, SIGMA)
      for name in ("bws", "fds", "lmbda")
      for value in (0, -1, nan, inf, -inf)],
    *[(name, value, ValueError, FACTOR)
      for name in ("bwf", "fbr")
      for value in (-0.5, nan, inf, -inf, 1.1e30)],
    *[(name, value, TypeError, "must be a number, got")
      for name in ("bws", "fds", "bwf", "fbr", "lmbda")
      for value in (None, "10", 1j, True, [10], torch.tensor(10.0), np.array(10.0), np.array([1.0, 2.0]))],
    *[("ks", value, ValueError, "must be a whole number of pixels from 1 to 2147483647, got")
      for value in (0, -1, -73, 2**31, 10**30)],
    *[("ks", value, TypeError, "must be an integer, got")
      for value in (73.0, 7.5, "73", True, nan, np.array(9))],
    *[(name, value, ValueError, f"must be one of {', '.join(map(repr, names))}, got")
      for name, names in (("distance", DISTANCES), ("border", BORDERS))
      for value in ("no rule at all", "", None, 1, np.array([names[0]] * 2))],
    *[("backend", value, ValueError, "must be one of 'auto', .*'native', .*'reference', got")
      for value in ("cuda", "", None, 1, np.array(["auto", "native"]))],
]  # fmt: skip
CONVOLUTION_SETTINGS = [setting for setting in SETTINGS if setting[0] in ("lmbda", "ks", "backend")] + [
    ("padding_mode", value, ValueError, "must be one of 'constant', 'reflect', 'replicate', 'circular', got")
    for value in ("zeros", "", None)
]


@pytest.fixture
def nothing_is_computed(monkeypatch):
    """Fails the test where an operator is reached."""

    def reached(*args):
        raise AssertionError("an operator was called")

    for name in ("weight_map", "region_weight_map", "distance_to_weight", "separable_conv2d"):
        monkeypatch.setattr(ops, name, reached)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("tensor, error, message", TENSORS)
def test_tensor(name, tensor, error, message):
    with pytest.raises(error, match=f"^{name} {message}"):
        FUNCTIONS[name](tensor)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("name", ["masks", "distance", "input"])
def test_one_image_is_not_enough(name):
    batch = r" or \[B, N, H, W\]" if name == "masks" else ""
    with pytest.raises(ValueError, match=rf"^{name} must have the shape \[N, H, W\]{batch}, got \(8, 9\)"):
        FUNCTIONS[name](torch.zeros(8, 9))


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("name", ["labels", "distance", "input"])
def test_four_axes_are_too_many(name):
    with pytest.raises(
        ValueError, match=rf"^{name} must have the shape .*H, W\]( \(spatial_dims=2\))?, got \(2, 1, 8, 9\)"
    ):
        FUNCTIONS[name](torch.zeros(2, 1, 8, 9))


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("name", ["labels", "masks", "distance"])
def test_requires_grad(name):
    tensor = torch.zeros(2, 8, 9, requires_grad=True)
    with pytest.raises(ValueError, match=rf"^{name} must not require grad.*{name}.detach\(\)"):
        FUNCTIONS[name](tensor)
    with pytest.raises(ValueError, match="must not require grad"):
        FUNCTIONS[name](tensor * 2)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("name, value, error, message", SETTINGS)
def test_settings_of_weights(name, value, error, message):
    with pytest.raises(error, match=f"^{name} {message}"):
        fastlogconv.WeightTransform(backend=value) if name == "backend" else WeightSettings(**{name: value})
    if not (value is None and name in BY_PRESET):  # which leaves it to the preset
        with pytest.raises(error, match=f"^{name} {message}"):
            fastlogconv.weight_map(LABELS, **{name: value})
        with pytest.raises(error, match=f"^{name} {message}"):
            fastlogconv.region_weight_map(MASKS, **{name: value})
    if name not in ("lmbda", "ks", "distance"):
        with pytest.raises(error, match=f"^{name} {message}"):
            fastlogconv.distance_to_weight(MASKS, **{name: value})


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("name, value, error, message", CONVOLUTION_SETTINGS)
def test_settings_of_the_convolution(name, value, error, message):
    with pytest.raises(error, match=f"^{name} {message}"):
        fastlogconv.separable_conv2d(MASKS, **{"lmbda": 1.0, "ks": 3, name: value})
    if name in ("lmbda", "ks"):
        with pytest.raises(error, match=f"^{name} {message}"):
            fastlogconv.lambda_kernel(**{"lmbda": 1.0, "ks": 3, name: value})


@pytest.mark.parametrize(
    "name, value", [("lmbda", -2.5), ("ks", -4), ("border", "nowhere"), ("backend", "tpu")]
)
def test_the_value_is_named(name, value):
    with pytest.raises(ValueError, match=f"got {value!r}$"):
        fastlogconv.weight_map(LABELS, **{name: value})


@pytest.mark.parametrize("name, value", [
    *[(name, value) for name in ("bws", "fds", "lmbda") for value in (5e-324, 1e-3, 1e6, 1.7e308)],
    ("bwf", 0), ("bwf", 1e30), ("fbr", 0), ("fbr", 2), ("ks", 1), ("ks", 2**31 - 1),
    ("ks", None), ("distance", "euclidean"),
])  # fmt: skip
@pytest.mark.parametrize("border", BORDERS)
def test_the_limits_are_accepted(border, name, value, backend, device):
    labels = torch.zeros(1, 16, 19, dtype=torch.int32, device=device)
    labels[0, 2:4, 3:6], labels[0, 12, 15] = 1, 2  # with ks = 5 out of each other's reach
    for ks in (5, 73):
        settings = {"border": border, "ks": ks, name: value}
        for dtype in (torch.int32, torch.float64):
            weights = fastlogconv.weight_map(labels.to(dtype), **settings, backend=backend)
            assert weights.isfinite().all() and (weights[labels > 0] == 1).all()


@pytest.mark.parametrize(
    "value, advice",
    [
        (np.array(10.0), "got a ndarray of the shape (): pass its .item()"),
        (torch.tensor([10.0]), "got a Tensor of the shape (1,): pass its .item()"),
        (np.array([1, 2]), "got a ndarray of the shape (2,): each call and each object has one value of it"),
    ],
)
def test_a_setting_is_one_number(value, advice):
    for name in ("bws", "ks"):
        for call in (WeightSettings, fastlogconv.WeightTransform):
            with pytest.raises(TypeError, match=f"^{name} must be an? .*{re.escape(advice)}"):
                call(**{name: value})


@pytest.mark.parametrize("name, value", [("bws", np.float32(3)), ("fds", np.int8(3)), ("ks", np.int64(9))])
def test_numpy_scalars_are_accepted(name, value):
    weights = fastlogconv.weight_map(LABELS, **{name: value})
    assert torch.equal(weights, fastlogconv.weight_map(LABELS, **{name: value.item()}))


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize(
    "foreground, error, message",
    [
        (torch.zeros(8, 9), TypeError, r"must be a bool tensor or None, got torch.float32"),
        (np.zeros((8, 9), dtype=bool), TypeError, r"must be a bool tensor or None, got ndarray"),
        (torch.zeros(9, 8, dtype=torch.bool), ValueError, r"must have the shape \(8, 9\).*got \(9, 8\)"),
        (torch.zeros(2, 8, 9, dtype=torch.bool), ValueError, r"must have the shape \(8, 9\)"),
        (
            torch.zeros(8, 9, dtype=torch.bool, device="meta"),
            ValueError,
            r"must be dense and on the device of distance, cpu, .*meta",
        ),
        (torch.zeros(8, 9, dtype=torch.bool).to_sparse(), ValueError, "must be dense .*sparse_coo"),
    ],
)
def test_foreground(foreground, error, message):
    with pytest.raises(error, match=f"^foreground {message}"):
        fastlogconv.distance_to_weight(MASKS, foreground)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize(
    "ignore, error, message",
    [
        (torch.zeros(8, 9), TypeError, "must be a bool tensor or None, got torch.float32: pass mask > 0"),
        (np.zeros((8, 9), dtype=bool), TypeError, "must be a bool tensor or None, got ndarray"),
        (True, TypeError, "must be a bool tensor or None, got bool"),
        (torch.zeros(9, 8, dtype=torch.bool), ValueError, r"must have a shape that broadcasts to .*\(9, 8\)"),
        (
            torch.zeros(3, 8, 9, dtype=torch.bool),
            ValueError,
            r"must have a shape that broadcasts to .*\(3, 8",
        ),
        (torch.zeros(1, 1, 8, 9, dtype=torch.bool), ValueError, "must have a shape that broadcasts to"),
        (
            torch.zeros(8, 9, dtype=torch.bool, device="meta"),
            ValueError,
            "must be dense and on the device of",
        ),
        (torch.zeros(8, 9, dtype=torch.bool).to_sparse(), ValueError, "must be dense .*sparse_coo"),
    ],
)
def test_ignore(ignore, error, message):
    with pytest.raises(error, match=f"^ignore {message}"):
        fastlogconv.weight_map(LABELS, ignore=ignore)
    with pytest.raises(error, match=f"^ignore {message}"):
        fastlogconv.region_weight_map(MASKS, ignore=ignore)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize(
    "value, error",
    [(1.0, TypeError), ("255", TypeError), (True, TypeError), (2**63, ValueError), (-(2**70), ValueError)],
)
def test_ignore_index(value, error):
    for given in (value, [value], (3, value), {value}):
        with pytest.raises(error, match=f"^ignore_index must be .*got {value!r}"):
            fastlogconv.weight_map(LABELS, ignore_index=given)
        with pytest.raises(error, match=f"^ignore_index must be .*got {value!r}"):
            fastlogconv.WeightTransform(ignore_index=given)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize(
    "classes, error, message",
    [
        (np.zeros((2, 8, 9)), TypeError, r"must be a torch.Tensor .*pass torch.from_numpy\(array\)"),
        (torch.zeros(2, 8, 9, dtype=torch.complex64), TypeError, "must be bool, .*, got torch.complex64"),
        (torch.zeros(8, 9), ValueError, r"must have the shape and device of labels, \(2, 8, 9\) .*\(8, 9\)"),
        (torch.zeros(2, 9, 8), ValueError, r"must have the shape and device of labels.*\(2, 9, 8\)"),
        (torch.zeros(2, 8, 9, requires_grad=True), ValueError, "must not require grad"),
        (torch.zeros(2, 8, 9, device="meta"), ValueError, "must be on cpu or cuda, got the meta device"),
        (torch.zeros(2, 8, 9).to_sparse(), TypeError, "must be dense, got .*sparse_coo"),
    ],
)
def test_classes(classes, error, message):
    with pytest.raises(error, match=f"^classes {message}"):
        fastlogconv.weight_map(LABELS, classes=classes)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize(
    "padding_mode, ks, message",
    [
        ("reflect", 17, "needs ks // 2 < H and W, got ks // 2 = 8 for H = 8, W = 9"),
        ("reflect", 16, "needs ks // 2 < H and W, got ks // 2 = 8 for H = 8, W = 9"),
        ("circular", 19, "needs ks // 2 <= H and W, got ks // 2 = 9 for H = 8, W = 9"),
    ],
)
def test_padding_wider_than_the_image(padding_mode, ks, message):
    with pytest.raises(ValueError, match=message):
        fastlogconv.separable_conv2d(MASKS, 1.0, ks, padding_mode)


@pytest.mark.parametrize("padding_mode, ks", [("reflect", 15), ("circular", 17), ("replicate", 99)])
def test_padding_as_wide_as_allowed(padding_mode, ks, backend, device):
    input = torch.ones(1, 8, 9, device=device)
    result = fastlogconv.separable_conv2d(input, 1.0, ks, padding_mode, backend=backend)
    kernel = np.exp(-abs(np.arange(-(ks // 2), ks // 2 + 1)))
    np.testing.assert_allclose(result.cpu(), np.full((1, 8, 9), kernel.sum() ** 2), rtol=1e-5)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name, value", [
    *[("distance", value) for value in (nan, -inf)],
    *[("masks", value) for value in (-1.0, -1e-6, nan, inf, -inf)],
])  # fmt: skip
def test_values(name, value, dtype, backend, device):
    tensor = torch.zeros(2, 5, 7, dtype=dtype, device=device)
    tensor[1, 2, 3] = value
    with pytest.raises(ValueError, match=f"{name} must hold (numbers|finite values >= 0)"):
        FUNCTIONS[name](tensor, backend=backend)


# --------------------------------------------------------------------------------------- what one tries next

ARRAYS = {
    "plain": np.arange(72).reshape(8, 9),
    "flipped": np.arange(72).reshape(8, 9)[::-1, ::-1],
    "big-endian": np.arange(72).reshape(8, 9).astype(">i4"),
    "flipped, big-endian": np.arange(72).reshape(8, 9).astype(">f8")[:, ::-1],
    "the other uint64": np.arange(72, dtype="Q").reshape(8, 9),
    "the other uint64, flipped": np.arange(72, dtype=np.ulonglong).reshape(8, 9)[::-1],
    "between other fields": np.zeros((8, 9), [("a", "u1"), ("id", "<i4")])["id"],
    "masked": np.ma.masked_array(np.arange(72).reshape(8, 9), False),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_the_advice_for_an_array_works(kind):
    array = ARRAYS[kind]
    with pytest.raises(TypeError, match=r"ndarray|MaskedArray") as refused:
        fastlogconv.weight_map(array)
    advice = re.search(r"torch\.from_numpy\(.*\)$", str(refused.value)).group()
    weights = fastlogconv.weight_map(eval(advice))
    exact = torch.tensor(array.tolist(), dtype=torch.float64 if array.dtype.kind == "f" else torch.int64)
    assert torch.equal(weights, fastlogconv.weight_map(exact))


@pytest.mark.parametrize("shape", [(2, 1, 8, 9), (1, 1, 8, 9), (2, 1, 4, 8, 9)])
def test_the_advice_for_an_axis_of_one_channel_works(shape):
    labels, dims = torch.randint(0, 3, shape), len(shape) - 2
    settings = dict(preset="unet2019", spatial_dims=dims)
    with pytest.raises(ValueError, match=r"pass labels\[:, 0\], without the axis of one channel$"):
        weight_map(labels, **settings)
    assert weight_map(labels[:, 0], **settings).shape == (shape[0], *shape[2:])
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 9\)$" if dims == 2 else r"got \(2, 3, 4, 8, 9\)$"):
        weight_map(labels[:1].repeat(2, 3, *[1] * dims), **settings)


@pytest.mark.usefixtures("on_cpu")
def test_what_an_image_in_place_of_labels_needs_is_said(backend, device):
    with pytest.raises(ValueError, match=r"got 0\.25: .* a mask, and ids by binary_to_instances$"):
        weight_map(torch.full((1, 3, 4), 0.25, device=device), backend=backend)
    with pytest.raises(ValueError, match=r"got nan$"):
        weight_map(torch.full((1, 3, 4), nan, device=device), backend=backend)


@pytest.mark.parametrize("function", [weight_map, fastlogconv.nearest_instances])
def test_spacing_of_a_volume_without_spatial_dims(function):
    settings = dict(preset="unet2019") if function is weight_map else {}
    with pytest.raises(ValueError, match=r"got 3: \(4\.0, 1\.0, 1\.0\); for volumes, spatial_dims=3$"):
        function(torch.zeros(4, 8, 9, dtype=torch.int32), spacing=(4, 1, 1), **settings)


@pytest.mark.parametrize("dtype, limit", [(torch.float16, 2048), (torch.bfloat16, 256)])
def test_ids_that_a_half_type_cannot_tell_apart(dtype, limit, backend, on_cpu):
    labels = torch.zeros(4, 8, dtype=dtype)
    labels[:, :2], labels[:, 6:] = limit, limit - 1
    weights = fastlogconv.weight_map(labels, backend=backend)
    assert torch.equal(weights, fastlogconv.weight_map(labels.int(), backend=backend).to(dtype))
    labels[:, 6:] = limit + limit // 32
    name, value = str(dtype).split(".")[1], f"{limit + limit // 32:g}"
    with pytest.raises(ValueError, match=f"^labels of {name} must be at most {limit}, .*got {value}: pass"):
        fastlogconv.weight_map(labels, backend=backend)
    ignored = fastlogconv.weight_map(labels, ignore=labels > limit, backend=backend)
    assert (ignored[:, 6:] == 0).all()  # whatever the label of a pixel is that is ignored
    labels[0, 7] = inf
    labels[:, 6] = 0
    labels[1:, 7] = 0
    with pytest.raises(ValueError, match="finite whole numbers"):
        fastlogconv.weight_map(labels, backend=backend)


@pytest.fixture
def not_warned(monkeypatch):
    monkeypatch.setattr(checks, "_warned_of_masks", False)


@pytest.mark.parametrize(
    "labels",
    [torch.ones(3, 4, dtype=torch.bool), torch.tensor([[0, 255], [255, 0]], dtype=torch.uint8)],
    ids=["bool", "0 and 255"],
)
def test_binary_masks_are_told_once(labels, not_warned):
    with pytest.warns(UserWarning, match=r"without instance ids .* fastlogconv.binary_to_instances\(mask\)"):
        weight_map(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight_map(labels)


@pytest.mark.parametrize("values", [[0, 1], [0, 0], [1, 1], [0, 3, 255], [254, 255]])
def test_a_crop_with_one_cell_is_usual(values, not_warned):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (torch.uint8, torch.int32, torch.float32):
            weight_map(torch.tensor([values]).to(dtype))
        weight_map(torch.tensor([[0, 255]], dtype=torch.int32))  # an id like any other
