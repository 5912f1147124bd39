"""`separate_touching` and `binary_to_instances`."""

import itertools
import sys

import numpy as np
import pytest
import scipy.ndimage
import torch
from cases import golden, scattered, surrounded

from fastlogconv import binary_to_instances, ops, separate_touching
from fastlogconv.labels import components_by_propagation

DTYPES = [
    torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
]  # fmt: skip


def neighbours_before(spatial_dims):
    return list(itertools.product((-1, 0, 1), repeat=spatial_dims))[: 3**spatial_dims // 2]


def by_loops(labels, classes=None):
    """From the definition, pixel by pixel."""
    out = labels.copy()
    for at in np.ndindex(labels.shape):
        for offset in neighbours_before(labels.ndim):
            other = tuple(np.add(at, offset))
            if any(not 0 <= i < n for i, n in zip(other, labels.shape, strict=True)):
                continue
            touches = labels[at] > 0 and labels[other] > 0 and labels[at] != labels[other]
            if touches and (classes is None or classes[at] == classes[other]):
                out[at] = 0
    return out


@pytest.mark.parametrize("shape", [(9, 12), (1, 12), (12, 1), (1, 1), (4, 5, 6), (1, 6, 5), (5, 1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_from_the_definition(seed, shape):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, (3, 2, 5, 9)[seed], shape)
    classes = rng.integers(0, 3, shape)
    dims = len(shape)
    for given in (None, classes):
        on_tensors = separate_touching(
            torch.from_numpy(labels), None if given is None else torch.from_numpy(given), spatial_dims=dims
        )
        np.testing.assert_array_equal(on_tensors.numpy(), by_loops(labels, given))


def test_as_published():
    file = golden("published_2d")
    labels, classes = torch.from_numpy(file["labels"]), torch.from_numpy(file["classes"])
    np.testing.assert_array_equal(separate_touching(labels), file["separated"])
    np.testing.assert_array_equal(separate_touching(labels, classes), file["separated_by_class"])


def test_four_corners():
    labels = torch.tensor([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    assert separate_touching(labels).tolist() == [[1, 1, 0, 2], [1, 0, 0, 2], [0, 0, 0, 0], [3, 0, 0, 4]]
    np.testing.assert_array_equal(separate_touching(labels), by_loops(labels.numpy()))


def test_afterwards_nothing_touches():
    rng = np.random.default_rng(3)
    labels = torch.from_numpy(rng.integers(0, 4, (60, 70)))
    separated = separate_touching(labels)
    assert separated.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(separated, torch.where(separated > 0, labels, 0))
    assert torch.equal(separate_touching(separated), separated)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_and_views(dtype):
    labels = torch.from_numpy(scattered((30, 40), 30, 5, np.random.default_rng(5)))
    expected = by_loops(labels.numpy())
    assert (expected != labels.numpy()).any()
    batch = torch.stack([labels, labels.flip(0), labels * 0]).to(dtype)
    separated = separate_touching(batch)
    assert separated.dtype == dtype and separated.is_contiguous()
    np.testing.assert_array_equal(separated[0].double(), expected)
    for image, whole in zip(batch, separated, strict=True):
        assert torch.equal(separate_touching(image), whole)
        assert torch.equal(separate_touching(surrounded(image, 3)), whole)
    flipped = batch.transpose(1, 2)
    assert torch.equal(separate_touching(flipped[:, ::2]), separate_touching(flipped[:, ::2].contiguous()))


def test_large_ids_and_none():
    labels = torch.tensor([[2**62, 2**62 + 1, 0], [10**8, 10**8, -5]])
    assert separate_touching(labels).tolist() == [[2**62, 0, 0], [0, 0, -5]]
    assert separate_touching(torch.ones(3, 4, dtype=torch.bool)).all()
    for shape in ((0, 4), (4, 0), (0, 3, 3)):
        assert separate_touching(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("dtype", [torch.bool, *DTYPES], ids=str)
@pytest.mark.parametrize("shape", [(2, 9, 40), (1, 1, 1), (3, 1, 7), (2, 5, 6, 9), (1, 1, 5, 7), (0, 3, 4)])
def test_foreground_of_the_operator(shape, dtype):
    rng = np.random.default_rng(6)
    labels = torch.from_numpy(rng.integers(0 if dtype.is_signed is False else -1, 4, shape)).to(dtype)
    classes = torch.from_numpy(rng.integers(-1, 3, shape))
    dims = len(shape) - 1
    for tensor in (labels, labels.transpose(-1, -2).contiguous().transpose(-1, -2), surrounded(labels, 3)):
        for given in (None, classes, classes.to(torch.uint8).clamp(max=2)):
            separated = separate_touching(labels, given, spatial_dims=dims).to(torch.float64)
            expected = (separated > 0) if given is None else (separated > 0) & (given > 0)
            assert torch.equal(ops.foreground_with_gaps(tensor, given), expected)


def test_compiled():
    compiled = torch.compile(separate_touching, fullgraph=True, backend="aot_eager")
    labels = torch.randint(0, 4, (2, 20, 30))
    assert torch.equal(compiled(labels), separate_touching(labels))


@pytest.mark.parametrize("connectivity, spatial_dims", [(1, 2), (2, 2), (1, 3), (2, 3), (3, 3)])
@pytest.mark.parametrize("density", [0.2, 0.45, 0.6, 0.95])
def test_components(density, connectivity, spatial_dims):
    rng = np.random.default_rng(11)
    shape = (40, 50) if spatial_dims == 2 else (12, 14, 16)
    masks = rng.random((3, *shape)) < density
    masks[2] = False
    structure = scipy.ndimage.generate_binary_structure(spatial_dims, connectivity)
    expected = np.stack([scipy.ndimage.label(mask, structure)[0] for mask in masks])
    tensor = torch.from_numpy(masks)
    given = dict(connectivity=connectivity, spatial_dims=spatial_dims)
    ids = binary_to_instances(tensor, **given)
    assert ids.dtype == torch.int32
    np.testing.assert_array_equal(ids, expected)
    np.testing.assert_array_equal(binary_to_instances(tensor[0].to(torch.uint8) * 255, **given), expected[0])
    propagated = components_by_propagation(tensor, connectivity)  # what a GPU does
    assert torch.equal(propagated, ids)


def spiral(size):
    mask = np.zeros((size, size), dtype=bool)
    y, x, dy, dx = 0, 0, 0, 1
    for length in range(size - 1, 0, -2):
        for _ in range(4):
            for _ in range(length):
                mask[y, x] = True
                y, x = y + dy, x + dx
            dy, dx = dx, -dy
        y, x = y + 1, x + 1
    return mask


@pytest.mark.parametrize("mask", [spiral(61), np.ones((50, 70), bool), np.indices((40, 41)).sum(0) % 2 == 0])
def test_far_round_components(mask):
    for connectivity in (1, 2):
        tensor = torch.from_numpy(mask)
        ids = binary_to_instances(tensor, connectivity=connectivity)
        assert torch.equal(components_by_propagation(tensor[None], connectivity)[0], ids)
    assert binary_to_instances(torch.zeros(2, 0, 3)).shape == (2, 0, 3)
    assert components_by_propagation(torch.zeros(2, 0, 3, dtype=torch.bool), 1).shape == (2, 0, 3)


def test_what_is_refused():
    labels = torch.ones(4, 5, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"labels must have the shape \[D, H, W\] or \[B, D, H, W\]"):
        separate_touching(labels, spatial_dims=3)
    with pytest.raises(ValueError, match=r"spatial_dims must be 2 .*, got 4"):
        separate_touching(labels, spatial_dims=4)
    with pytest.raises(ValueError, match="classes must have the shape and device of labels"):
        separate_touching(labels, labels[:2])
    with pytest.raises(TypeError, match=r"labels must be a torch.Tensor .*got ndarray"):
        separate_touching(labels.numpy())
    with pytest.raises(ValueError, match="connectivity must be from 1 to 2, got 3"):
        binary_to_instances(labels, connectivity=3)
    with pytest.raises(TypeError, match=r"connectivity must be an integer, got 1\.0"):
        binary_to_instances(labels, connectivity=1.0)
    with pytest.raises(ValueError, match=r"spatial_dims must be 2 .*, got True"):
        binary_to_instances(labels, spatial_dims=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_labels_that_are_no_ids(dtype, value):
    labels = torch.ones(4, 5, dtype=dtype)
    labels[1, 2] = value
    advice = ": of an image .* ids by binary_to_instances" if value == 1.5 else ""
    with pytest.raises(ValueError, match=rf"^labels must be finite whole numbers .*, got {value}{advice}$"):
        separate_touching(labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_masks_that_are_no_numbers(dtype):
    masks = torch.rand(4, 5).to(dtype)  # any numbers are taken
    masks[0, 0] = torch.inf
    assert binary_to_instances(masks - 0.5).max() >= 1
    masks[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"^masks must hold numbers .*, got nan$"):
        binary_to_instances(masks)


def test_values_are_not_looked_at_in_compiled_code_or_under_vmap():
    labels = torch.ones(3, 4, 5)
    labels[0, 1, 2] = torch.nan
    separate = torch.compile(separate_touching, backend="eager", fullgraph=True)
    assert separate(labels).shape == labels.shape
    labels[0, 1, 2] = 7
    assert torch.equal(torch.func.vmap(separate_touching)(labels), separate_touching(labels))


def test_components_without_scipy(monkeypatch):
    masks = torch.zeros(1, 4, 5, dtype=torch.bool)
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r"^binary_to_instances on the CPU needs SciPy: pip install scipy$"):
        binary_to_instances(masks)
