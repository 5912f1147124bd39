import copy
import inspect
import itertools
import pickle
import re

import numpy as np
import pytest
import torch
from cases import BORDERS, scattered, tensor_type, two_cells

from fastlogconv import (
    SeparableConv2D,
    WeightTransform,
    WeightTransformSingle,
    backends,
    ops,
    region_weight_map,
    separable_conv2d,
    weight_map,
)

DEEPFLASH2 = dict(distance="logconv", border="farthest", bws=10, fds=10, bwf=1, fbr=0.1, lmbda=0.35, ks=73)
OTHERS = dict(bws=5, fds=4, bwf=3, fbr=0.2, lmbda=1.5, ks=21, border="second_nearest")

MODULES = {
    "WeightTransform": lambda: WeightTransform(64, **OTHERS, backend="reference"),
    "WeightTransformSingle": lambda: WeightTransformSingle(64, **OTHERS, backend="reference"),
    "SeparableConv2D": lambda: SeparableConv2D(2.5, 64, ks=11, padding_mode="reflect", backend="reference"),
}


def labels_of(device):
    return torch.from_numpy(two_cells()).to(device)


def masks_of(device):
    labels = labels_of(device)
    return (labels == torch.tensor([1, 2], device=device)[:, None, None]).float()


def test_signatures():
    """The order and the defaults of deepflash2's parameters; ours come after them, by keyword."""
    for transform in (WeightTransform, WeightTransformSingle):
        parameters = inspect.signature(transform).parameters
        positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional == ["channels", "bws", "fds", "bwf", "fbr", "lmbda", "ks"]
        by_preset = {"distance", "border", "falloff", "balance", "gaps", "bws", "bwf"}
        assert all(parameters[name].default is None for name in by_preset)
        assert parameters["preset"].default == "deepflash2"
        made = transform()
        assert {name: getattr(made, name) for name in DEEPFLASH2} == DEEPFLASH2
        assert {name: parameters[name].default for name in DEEPFLASH2 if name not in by_preset} == {
            name: value for name, value in DEEPFLASH2.items() if name not in by_preset
        }
    parameters = inspect.signature(SeparableConv2D).parameters
    assert list(parameters) == ["lmbda", "channels", "ks", "padding_mode", "backend"]
    defaults = [p.default for p in parameters.values()]
    assert defaults == [inspect.Parameter.empty, None, 73, "constant", "auto"]


def test_weight_transform_is_the_function(backend, device):
    labels = labels_of(device)
    for shape in (labels, labels[None], torch.stack([labels, labels.flip(0)])):
        weights = WeightTransform(backend=backend)(shape)
        assert torch.equal(weights, weight_map(shape, **DEEPFLASH2, backend=backend))
        weights = WeightTransform(**OTHERS, backend=backend)(shape)
        assert torch.equal(weights, weight_map(shape, **OTHERS, backend=backend))


def test_weight_transform_single_is_the_function(backend, device):
    masks = masks_of(device)
    weights = WeightTransformSingle(backend=backend)(masks)
    assert torch.equal(weights, region_weight_map(masks, **DEEPFLASH2, backend=backend))
    weights = WeightTransformSingle(**OTHERS, backend=backend)(masks)
    assert torch.equal(weights, region_weight_map(masks, **OTHERS, backend=backend))


PRESETS = {
    "unet2019": dict(
        distance="euclidean", border="second_nearest", falloff="nearest", gaps=True, bws=6, bwf=50
    ),
    "unet2015": dict(
        distance="euclidean", border="second_nearest", falloff="none", balance="frequency", bws=5, bwf=10
    ),
    "deepflash2_offline": dict(distance="euclidean", border="second_nearest", bwf=10),
    "deepflash2_logconv": dict(distance="logconv", border="second_nearest", bwf=10),
    "deepflash2": dict(distance="logconv", border="farthest", bwf=1),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset, backend, device):
    labels, masks = labels_of(device), masks_of(device)
    for settings in (dict(), dict(bws=4), dict(bwf=3), dict(border="farthest"), dict(distance="euclidean")):
        expected = {**PRESETS[preset], **settings, "backend": backend}
        chosen = dict(preset=preset, **settings, backend=backend)
        features = ops._features(WeightTransform(**chosen).settings, None)
        if backends.why_not(backends.BACKENDS[backend], labels.device, features):
            with pytest.raises(RuntimeError, match=r"it does not compute .* yet"):
                weight_map(labels, **expected)
            continue
        assert torch.equal(WeightTransform(**chosen)(labels), weight_map(labels, **expected))
        if preset.startswith("deepflash2"):
            assert torch.equal(WeightTransformSingle(**chosen)(masks), region_weight_map(masks, **expected))


def test_presets_differ():
    weights = [WeightTransform(preset=preset)(labels_of("cpu")) for preset in PRESETS]
    assert all(not torch.allclose(a, b, rtol=0.01) for a, b in itertools.pairwise(weights))


@pytest.mark.parametrize("transform", [WeightTransform, WeightTransformSingle])
@pytest.mark.parametrize("preset", ["u-net", "", None, 1, ["deepflash2_offline"]])
def test_unknown_presets(preset, transform):
    with pytest.raises(
        ValueError, match=f"preset must be one of 'unet2019', .*got {re.escape(repr(preset))}"
    ):
        transform(preset=preset)


def test_classes_and_ignore(backend, device):
    labels = labels_of(device)
    classes, ignore = (labels > 1).int() + 1, labels < 0
    ignore[:, :3] = True
    transform = WeightTransform(preset="deepflash2_offline", ignore_index=2, backend=backend)
    settings = dict(**PRESETS["deepflash2_offline"], ignore_index=2, backend=backend)
    for given in (dict(), dict(classes=classes), dict(ignore=ignore), dict(classes=classes, ignore=ignore)):
        assert torch.equal(transform(labels, **given), weight_map(labels, **given, **settings))
    transform = WeightTransformSingle(16, preset="deepflash2_offline", backend=backend)
    offline = PRESETS["deepflash2_offline"]
    expected = region_weight_map(masks_of(device), ignore=ignore, **offline, backend=backend)
    assert torch.equal(transform(masks_of(device), ignore=ignore), expected)
    expected = torch.full(ignore.shape, 0.1, device=device).masked_fill(ignore, 0)
    assert torch.equal(transform(masks_of(device)[:0], ignore=ignore), expected)


def test_unbounded_window(backend, device):
    transform = WeightTransform(ks=None, backend=backend)
    assert "ks=None" in repr(transform)
    expected = weight_map(labels_of(device), **{**DEEPFLASH2, "ks": None}, backend=backend)
    assert torch.equal(transform(labels_of(device)), expected)


def test_separable_conv_is_the_function(backend, device):
    input = torch.randn(2, 30, 40, generator=torch.Generator().manual_seed(6)).to(device)
    module = SeparableConv2D(2.5, ks=11, padding_mode="reflect", backend=backend)
    assert torch.equal(module(input), separable_conv2d(input, 2.5, 11, "reflect", backend=backend))
    expected = separable_conv2d(input, 0.35, 73, "constant", backend=backend)
    assert torch.equal(SeparableConv2D(0.35, backend=backend)(input), expected)


def test_settings_may_be_numpy_scalars(backend, device):
    transform = WeightTransform(np.int64(24), np.float32(5), np.int32(4), ks=np.int16(21), backend=backend)
    weights = transform(labels_of(device))
    assert torch.equal(weights, WeightTransform(24, 5, 4, ks=21, backend=backend)(labels_of(device)))
    assert not any(isinstance(value, np.generic) for value in vars(transform).values())


@pytest.mark.parametrize("channels, shape", [(16, (16, 16)), (0, (0, 0)), (None, (5, 7))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_zero_regions(dtype, channels, shape, backend, device):
    transform = WeightTransformSingle(channels, fbr=0.3, backend=backend)
    weights = transform(torch.zeros(0, 5, 7, dtype=dtype, device=device))
    assert weights.device.type == device
    assert torch.equal(weights, torch.full(shape, 0.3, dtype=dtype, device=device))


def test_channels_do_not_restrict_the_size(backend, device):
    labels, masks = labels_of(device), masks_of(device)
    assert WeightTransform(16, backend=backend)(labels).shape == labels.shape
    assert WeightTransformSingle(16, backend=backend)(masks).shape == labels.shape
    assert SeparableConv2D(1.0, 16, backend=backend)(masks).shape == masks.shape


def test_encodes(backend, device):
    for transform, input in (
        (WeightTransform(backend=backend), labels_of(device)),
        (WeightTransformSingle(backend=backend), masks_of(device)),
    ):
        assert torch.equal(transform.encodes(input), transform(input))


# --------------------------------------------------------------------------------------------------- fastai


TENSOR_BASE = tensor_type("TensorBase", "fastai.torch_core")
TENSOR_IMAGE = tensor_type("TensorImage", "fastai.torch_core", TENSOR_BASE)
TENSOR_MASK = tensor_type("TensorMask", "fastai.torch_core", TENSOR_BASE)
PASSED_THROUGH = [TENSOR_IMAGE, TENSOR_MASK, tensor_type("TensorImageBW", "fastai.vision.core", TENSOR_IMAGE)]
TRANSFORMED = [
    TENSOR_BASE,
    tensor_type("TensorMask", "my_library"),
    tensor_type("TensorMask", "fastaily.core"),
    tensor_type("TensorMasks", "fastai.torch_core"),
]


@pytest.mark.parametrize("tensor", PASSED_THROUGH)
def test_images_and_masks_of_fastai_pass_through(tensor):
    for labels in (two_cells(), two_cells()[None].astype(np.float32), np.full((3, 4, 5, 6), np.nan)):
        labels = torch.from_numpy(labels).as_subclass(tensor)
        assert WeightTransform()(labels) is labels
        assert WeightTransform().encodes(labels) is labels


@pytest.mark.parametrize("tensor", TRANSFORMED)
def test_other_tensor_types_are_transformed(tensor):
    labels = labels_of("cpu")
    weights = WeightTransform()(labels.as_subclass(tensor))
    assert torch.equal(weights.as_subclass(torch.Tensor), WeightTransform()(labels))


# --------------------------------------------------------------------------------------------- as modules


@pytest.mark.parametrize("name", MODULES)
def test_copies_compute_the_same(name):
    module = MODULES[name]()
    input = masks_of("cpu") if name != "WeightTransform" else labels_of("cpu")
    for copied in (copy.deepcopy(module), copy.copy(module), pickle.loads(pickle.dumps(module))):
        assert repr(copied) == repr(module)
        assert torch.equal(copied(input), module(input))


@pytest.mark.parametrize("name", MODULES)
def test_no_parameters_no_state(name):
    module = MODULES[name]()
    assert isinstance(module, torch.nn.Module)
    assert not list(module.parameters()) and not list(module.buffers()) and not module.state_dict()


def test_repr_shows_the_settings():
    assert repr(WeightTransform(bwf=3, border="second_nearest")) == (
        "WeightTransform(channels=None, distance='logconv', border='second_nearest', falloff='sum', "
        "balance='none', border_everywhere=False, gaps=False, bws=10.0, "
        "fds=10.0, bwf=3.0, fbr=0.1, lmbda=0.35, ks=73, spacing=None, spatial_dims=2, "
        "backend='auto', ignore_index=None)"
    )
    assert repr(WeightTransformSingle(512)) == (
        "WeightTransformSingle(channels=512, distance='logconv', border='farthest', falloff='sum', "
        "balance='none', border_everywhere=False, gaps=False, bws=10.0, "
        "fds=10.0, bwf=1.0, fbr=0.1, lmbda=0.35, ks=73, spacing=None, spatial_dims=2, "
        "backend='auto')"
    )
    assert repr(SeparableConv2D(0.5, ks=9, padding_mode="circular")) == (
        "SeparableConv2D(lmbda=0.5, channels=None, ks=9, padding_mode='circular', backend='auto')"
    )


def test_inside_a_sequential():
    labels = torch.from_numpy(scattered((30, 40), 5, 6, np.random.default_rng(28)))
    pipeline = torch.nn.Sequential(WeightTransform(), torch.nn.Identity())
    assert torch.equal(pipeline(labels), WeightTransform()(labels))


@pytest.mark.parametrize("transform", [WeightTransform, WeightTransformSingle])
@pytest.mark.parametrize(
    "name, value, error",
    [
        ("channels", 1.5, TypeError),
        ("channels", -1, ValueError),
        ("bws", 0, ValueError),
        ("fds", -1, ValueError),
        ("bwf", float("inf"), ValueError),
        ("fbr", float("nan"), ValueError),
        ("lmbda", 0, ValueError),
        ("ks", 0, ValueError),
        ("ks", 7.5, TypeError),
        ("border", "no rule at all", ValueError),
        ("backend", "numpy", ValueError),
    ],
)
def test_settings_are_checked_at_construction(transform, name, value, error):
    with pytest.raises(error, match=f"{name} must be.*{value}"):
        transform(**{name: value})


@pytest.mark.parametrize(
    "settings, named",
    [
        (dict(lmbda=0), "lmbda"),
        (dict(lmbda=1, ks=0), "ks"),
        (dict(lmbda=1, padding_mode="zeros"), "padding_mode"),
        (dict(lmbda=1, backend="cudnn"), "backend"),
        (dict(lmbda=1, channels=-1), "channels"),
    ],
)
def test_settings_of_the_convolution_are_checked_at_construction(settings, named):
    with pytest.raises(ValueError, match=f"{named} must be"):
        SeparableConv2D(**settings)


@pytest.mark.parametrize("border", BORDERS)
def test_changed_settings_take_effect_and_are_checked(border):
    transform = WeightTransform(border=border)
    transform.fds = 3
    assert torch.equal(transform(labels_of("cpu")), WeightTransform(fds=3, border=border)(labels_of("cpu")))
    with pytest.raises(ValueError, match="fds must be"):
        transform.fds = -3
    assert transform.fds == 3
