"""What a CUDA device has to show: the cases of the other tests, and what only a GPU can. `make test-gpu`.

Without one the same tests run on stand-ins, see gpu_devices.py.
"""

import itertools

import numpy as np
import pytest
import torch
from cases import (
    BORDERS,
    SHAPE_SETTINGS,
    SHAPES,
    random_case,
    random_weights64,
    relative_error,
    shape_weights64,
    weight_error,
)
from gpu_devices import CudaDevice, StandIn
from tolerances import CONVOLUTION, WEIGHT, WEIGHT_MEDIAN

import fastlogconv
from fastlogconv import backends

BACKENDS = ["triton", "native"]
ALL_SHAPES = list(itertools.product(SHAPES, range(len(SHAPE_SETTINGS))))


def device_of(kind, backend, *marks):
    return pytest.param(
        (kind, backend), marks=marks, id=f"{backend}-{'cuda' if kind is CudaDevice else 'stand-in'}"
    )


no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")


@pytest.fixture(
    params=[device_of(CudaDevice, name, pytest.mark.gpu, no_gpu) for name in BACKENDS]
    + [device_of(StandIn, name) for name in BACKENDS]
)
def gpu(request):
    """A GPU, or a stand-in for one, and a backend."""
    kind, backend = request.param
    gpu = kind(backend)
    if (reason := gpu.why_not()) is not None:
        pytest.skip(reason)
    with gpu.ready():
        yield gpu


def image_of(shape, count, seed=50):
    """Labels int32 of `count` disks."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    labels = np.zeros(shape, dtype=np.int32)
    for i in range(1, count + 1):
        center = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        labels[(y - center[0]) ** 2 + (x - center[1]) ** 2 <= rng.integers(1, 13) ** 2] = i
    return torch.from_numpy(labels)


@pytest.mark.gpu
@no_gpu
@pytest.mark.parametrize("operator", backends.OPERATORS)
def test_auto_takes_the_faster_one(operator):
    device = torch.device("cuda")
    reasons = backends.reasons(device)
    if reasons["triton"] or reasons["native"]:
        pytest.skip(reasons["triton"] or reasons["native"])
    faster = "triton" if operator == "distance_to_weight" else "native"
    assert backends.first(device, (), operator) == faster


@pytest.mark.parametrize("setting", range(len(SHAPE_SETTINGS)))
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, setting, gpu):
    if (name, setting) not in gpu.fewer(ALL_SHAPES, [("one pixel", 0)]):
        pytest.skip("takes too long without a GPU")
    labels = torch.from_numpy(SHAPES[name]()).to(gpu.device)
    for border in BORDERS:
        weights = fastlogconv.weight_map(
            labels, border=border, **SHAPE_SETTINGS[setting], backend=gpu.backend
        )
        assert weight_error(weights, shape_weights64(name, setting, border)) <= WEIGHT[torch.float32]


def test_random_cases(gpu):
    errors = []
    for seed in range(gpu.fewer(40, 2)):
        labels, settings = random_case(seed)
        labels = torch.from_numpy(labels).to(gpu.device)
        weights = fastlogconv.weight_map(labels, **settings, backend=gpu.backend)
        errors.append(weight_error(weights, random_weights64(seed)))
    assert max(errors) <= WEIGHT[torch.float32]
    assert np.median(errors) <= WEIGHT_MEDIAN


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64]
)
def test_dtypes_and_views(dtype, gpu):
    height, width = gpu.fewer((97, 101), (37, 41))
    labels = image_of((2 * height, 3 * width), gpu.fewer(60, 20))[::2, ::3].to(dtype)
    weights = fastlogconv.weight_map(labels.to(gpu.device), backend=gpu.backend)
    expected = gpu.exactly(fastlogconv.weight_map, labels.double())
    assert weights.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert weight_error(weights, expected) <= WEIGHT[weights.dtype]
    view = torch.stack([labels, labels], -1).to(gpu.device)[..., 0]
    assert not view.is_contiguous()
    assert torch.equal(fastlogconv.weight_map(view, backend=gpu.backend), weights)


def test_forty_thousand_instances_with_large_ids(gpu):
    small = torch.zeros(512, 512, dtype=torch.int64)
    small[::5, ::2] = torch.arange(1, 103 * 256 + 1).reshape(103, 256)
    small[2::5, ::3] = torch.arange(30000, 30000 + 102 * 171).reshape(102, 171)
    side = gpu.fewer(512, 48)
    small = small[:side, :side]
    large = torch.where(small > 0, small * 2**45 + 1, 0).to(gpu.device)
    weights = fastlogconv.weight_map(large, backend=gpu.backend)
    assert weight_error(weights, gpu.exactly(fastlogconv.weight_map, small.double())) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("padding_mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_convolution(dtype, padding_mode, gpu):
    shape = gpu.fewer((3, 257, 131), (2, 41, 47))
    input = torch.randn(shape, generator=torch.Generator().manual_seed(51)).to(dtype)
    for lmbda, ks in ((0.35, 73), (5.0, 31)):
        leaf = input.to(gpu.device).requires_grad_()
        result = fastlogconv.separable_conv2d(leaf, lmbda, ks, padding_mode, backend=gpu.backend)
        exact = input.to(torch.float64, copy=True).requires_grad_()
        expected = gpu.exactly(fastlogconv.separable_conv2d, exact, lmbda, ks, padding_mode)
        assert relative_error(result, expected.detach()) <= CONVOLUTION[dtype]
        (gradient,) = torch.autograd.grad(result.sum(), leaf)
        (exact_gradient,) = torch.autograd.grad(expected.sum(), exact)
        assert gradient.dtype == dtype
        assert relative_error(gradient, exact_gradient) <= 2 * CONVOLUTION[dtype]


def test_regions_and_distances(gpu):
    labels = image_of(gpu.fewer((97, 131), (45, 61)), 9)
    masks = torch.stack([(labels == i) * (0.1 * i) for i in range(10)])  # the first is empty
    weights = fastlogconv.region_weight_map(masks.to(gpu.device), backend=gpu.backend)
    expected = gpu.exactly(fastlogconv.region_weight_map, masks.double())
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]
    distance = torch.rand(5, *labels.shape, generator=torch.Generator().manual_seed(52)) * 40
    weights = fastlogconv.distance_to_weight(
        distance.to(gpu.device), (labels > 0).to(gpu.device), backend=gpu.backend
    )
    expected = gpu.exactly(fastlogconv.distance_to_weight, distance.double(), labels > 0)
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", ["logconv", "euclidean"])
def test_options(distance, border, gpu):
    """Right, and from a graph, in which nothing can wait for the GPU."""
    reason = gpu.why_not("euclidean", "classes", "ignore")
    if reason is not None:
        pytest.skip(reason)
    shape = gpu.fewer((203, 211), (51, 61))
    labels = torch.stack([image_of(shape, 20, seed) for seed in (55, 56)])
    options = dict(
        classes=torch.where(labels % 5 == 0, 2**31 - 1, labels % 5), ignore=torch.arange(shape[1]) < 7
    )
    settings = dict(distance=distance, border=border, bws=30)
    expected = gpu.exactly(fastlogconv.weight_map, labels.double(), **options, **settings)
    input = labels.to(gpu.device)
    there = {name: tensor.to(gpu.device) for name, tensor in options.items()}

    def weigh():
        return fastlogconv.weight_map(input, **there, **settings, backend=gpu.backend)

    weights = weigh()
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]
    captured, replay = gpu.recorded(weigh)
    captured.fill_(torch.nan)
    replay()
    assert torch.equal(captured, weights)
    masks = torch.stack([(labels[0] == i) * 0.5 for i in range(1, 6)])
    weights = fastlogconv.region_weight_map(
        masks.to(gpu.device), ignore=there["ignore"], **settings, backend=gpu.backend
    )
    expected = gpu.exactly(
        fastlogconv.region_weight_map, masks.double(), ignore=options["ignore"], **settings
    )
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


def test_a_hundred_runs_are_equal_to_the_bit(gpu):
    labels = image_of(gpu.fewer((509, 503), (61, 67)), 125).to(gpu.device)
    first = fastlogconv.weight_map(labels, backend=gpu.backend)
    for _ in range(gpu.fewer(100, 3)):
        torch.empty(labels.shape, device=gpu.device).fill_(torch.nan)  # where the next result may lie
        assert torch.equal(fastlogconv.weight_map(labels, backend=gpu.backend), first)


@pytest.mark.parametrize("border", BORDERS)
def test_graph_capture(border, gpu):
    shape = gpu.fewer((203, 211), (61, 67))
    images = [image_of(shape, 20, seed).to(gpu.device) for seed in (53, 54)]
    labels = images[0].clone()
    eager = [fastlogconv.weight_map(image, border=border, backend=gpu.backend) for image in images]
    weights, replay = gpu.recorded(lambda: fastlogconv.weight_map(labels, border=border, backend=gpu.backend))
    for image, expected in zip(images, eager, strict=True):
        labels.copy_(image)
        replay()
        assert torch.equal(weights, expected)


def _losses(labels):
    """Every loss with every setting that adds an operation, and its gradient."""
    target, outputs = (labels > 0).long()[None], torch.zeros(1, 2, *labels.shape, device=labels.device)
    class_weight = torch.ones(2, device=labels.device)
    for module in (
        fastlogconv.WeightedCrossEntropyLoss("weight", label_smoothing=0.1, ignore_index=1),
        fastlogconv.WeightedDiceLoss(activation="sigmoid", squared_pred=True, batch=True),
        fastlogconv.WeightedDiceCELoss(include_background=False),
    ):
        module.class_weight = class_weight
        outputs.requires_grad_()
        scales = [outputs, outputs[:, :, ::2, ::2]]
        targets, weights = (fastlogconv.resize_nearest(each, scales) for each in (target, target.float()))
        sum(module(*each) for each in zip(scales, targets, weights, strict=True)).backward()
    return outputs.grad


def test_no_synchronisation(gpu):
    labels = image_of(gpu.fewer((203, 211), (61, 67)), 20).to(gpu.device)
    input, masks = (
        labels[None].float(),
        (labels == torch.arange(1, 4, device=gpu.device)[:, None, None]).float(),
    )
    calls = [
        lambda: fastlogconv.weight_map(labels, backend=gpu.backend),
        lambda: fastlogconv.weight_map(labels, border="farthest", classes=labels % 3, backend=gpu.backend),
        lambda: fastlogconv.separable_conv2d(input, 0.35, backend=gpu.backend),
        lambda: fastlogconv.region_weight_map(masks, ignore=labels == 5, backend=gpu.backend),
        lambda: fastlogconv.distance_to_weight(input, labels > 0, backend=gpu.backend),
        lambda: _losses(labels),
    ]
    expected = [call() for call in calls]  # compiles what is not yet
    with gpu.nothing_waits():
        with pytest.raises(RuntimeError):
            labels.max().item()  # so waiting is noticed
        results = [call() for call in calls]
    assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))


def test_other_stream(gpu):
    labels = image_of(gpu.fewer((509, 503), (61, 67)), 125).to(gpu.device)
    expected = fastlogconv.weight_map(labels, backend=gpu.backend)
    late = torch.zeros_like(labels)
    weights, was_busy = gpu.on_a_busy_stream(
        lambda: fastlogconv.weight_map(late.copy_(labels), backend=gpu.backend)
    )
    assert was_busy  # it was put behind what the stream was busy with
    assert torch.equal(weights, expected)


@pytest.mark.gpu
@no_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second CUDA device")
@pytest.mark.parametrize("backend", BACKENDS)
def test_second_device(backend):
    if (reason := CudaDevice(backend).why_not()) is not None:
        pytest.skip(reason)
    labels = image_of((203, 211), 20)
    weights = fastlogconv.weight_map(labels.to("cuda:1"), backend=backend)
    assert weights.device == torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0
    assert torch.equal(weights.cpu(), fastlogconv.weight_map(labels.to("cuda:0"), backend=backend).cpu())
