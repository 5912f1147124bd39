"""What needs a CUDA device: the cases of the other tests, and what only a GPU can show. `pytest -m gpu`."""

import importlib.util

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
from tolerances import CONVOLUTION, WEIGHT, WEIGHT_MEDIAN

import fastlogconv
from fastlogconv import backends

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device"),
]
BACKENDS = ["triton", "native"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    reason = backends.BACKENDS[request.param].why_not(torch.device("cuda"))
    if reason is not None:
        pytest.skip(reason)
    return request.param


def image_of(shape, count, seed=50):
    """Labels int32 of `count` disks."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    labels = np.zeros(shape, dtype=np.int32)
    for i in range(1, count + 1):
        center = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        labels[(y - center[0]) ** 2 + (x - center[1]) ** 2 <= rng.integers(1, 13) ** 2] = i
    return torch.from_numpy(labels)


def expected_of(labels, **settings):
    return fastlogconv.weight_map(labels.cpu().double(), **settings, backend="native")


def test_auto_takes_triton():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("the package triton is not installed")
    assert backends.first(torch.device("cuda")) == "triton"


@pytest.mark.parametrize("setting", range(len(SHAPE_SETTINGS)))
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, setting, backend):
    labels = torch.from_numpy(SHAPES[name]()).cuda()
    for border in BORDERS:
        weights = fastlogconv.weight_map(labels, border=border, **SHAPE_SETTINGS[setting], backend=backend)
        assert weight_error(weights, shape_weights64(name, setting, border)) <= WEIGHT[torch.float32]


def test_random_cases(backend):
    errors = []
    for seed in range(40):
        labels, settings = random_case(seed)
        weights = fastlogconv.weight_map(torch.from_numpy(labels).cuda(), **settings, backend=backend)
        errors.append(weight_error(weights, random_weights64(seed)))
    assert max(errors) <= WEIGHT[torch.float32]
    assert np.median(errors) <= WEIGHT_MEDIAN


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.float16, torch.float64]
)
def test_dtypes_and_views(dtype, backend):
    labels = image_of((2 * 97, 3 * 101), 60)[::2, ::3].to(dtype)
    weights = fastlogconv.weight_map(labels.cuda(), backend=backend)
    expected = expected_of(labels)
    assert weights.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert weight_error(weights, expected) <= WEIGHT[weights.dtype]
    view = torch.stack([labels, labels], -1).cuda()[..., 0]
    assert torch.equal(fastlogconv.weight_map(view, backend=backend), weights)


def test_forty_thousand_instances_with_large_ids(backend):
    small = torch.zeros(512, 512, dtype=torch.int64)
    small[::5, ::2] = torch.arange(1, 103 * 256 + 1).reshape(103, 256)
    small[2::5, ::3] = torch.arange(30000, 30000 + 102 * 171).reshape(102, 171)
    large = torch.where(small > 0, small * 2**45 + 1, 0)
    weights = fastlogconv.weight_map(large.cuda(), backend=backend)
    assert weight_error(weights, expected_of(small)) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("padding_mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_convolution(dtype, padding_mode, backend):
    input = torch.randn(3, 257, 131, generator=torch.Generator().manual_seed(51)).to(dtype)
    for lmbda, ks in ((0.35, 73), (5.0, 31)):
        leaf = input.cuda().requires_grad_()
        result = fastlogconv.separable_conv2d(leaf, lmbda, ks, padding_mode, backend=backend)
        exact = input.double().requires_grad_()
        expected = fastlogconv.separable_conv2d(exact, lmbda, ks, padding_mode, backend="native")
        assert relative_error(result, expected.detach()) <= CONVOLUTION[dtype]
        result.sum().backward()
        expected.sum().backward()
        assert relative_error(leaf.grad, exact.grad) <= 2 * CONVOLUTION[dtype]


def test_regions_and_distances(backend):
    labels = image_of((97, 131), 9)
    masks = torch.stack([(labels == i) * (0.1 * i) for i in range(10)])  # the first is empty
    weights = fastlogconv.region_weight_map(masks.cuda(), backend=backend)
    assert weight_error(weights, fastlogconv.region_weight_map(masks.double(), backend="native")) <= 1e-5
    distance = torch.rand(5, 97, 131, generator=torch.Generator().manual_seed(52)) * 40
    weights = fastlogconv.distance_to_weight(distance.cuda(), (labels > 0).cuda(), backend=backend)
    expected = fastlogconv.distance_to_weight(distance.double(), labels > 0, backend="native")
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("distance", ["logconv", "euclidean"])
def test_options(distance, border, backend):
    """Right, and from a graph, in which nothing can wait for the GPU."""
    features = ("euclidean", "classes", "ignore")
    reason = backends.why_not(backends.BACKENDS[backend], torch.device("cuda"), features)
    if reason is not None:
        pytest.skip(reason)
    labels = torch.stack([image_of((203, 211), 20, seed) for seed in (55, 56)])
    options = dict(classes=torch.where(labels % 5 == 0, 2**31 - 1, labels % 5), ignore=torch.arange(211) < 7)
    settings = dict(distance=distance, border=border, bws=30)
    expected = expected_of(labels, **options, **settings)
    input = labels.cuda()
    options = {name: tensor.cuda() for name, tensor in options.items()}
    weights = fastlogconv.weight_map(input, **options, **settings, backend=backend)
    assert weight_error(weights, expected) <= WEIGHT[torch.float32]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = fastlogconv.weight_map(input, **options, **settings, backend=backend)
    graph.replay()
    assert torch.equal(captured, weights)
    masks = torch.stack([(labels[0] == i) * 0.5 for i in range(1, 6)])
    weights = fastlogconv.region_weight_map(
        masks.cuda(), ignore=options["ignore"], **settings, backend=backend
    )
    expected = fastlogconv.region_weight_map(
        masks.double(), ignore=options["ignore"].cpu(), **settings, backend="native"
    )
    assert weight_error(weights, expected) <= 1e-5


def test_a_hundred_runs_are_equal_to_the_bit(backend):
    labels = image_of((509, 503), 125).cuda()
    first = fastlogconv.weight_map(labels, backend=backend)
    for _ in range(100):
        torch.empty(labels.shape, device="cuda").fill_(torch.nan)  # where the next result may lie
        assert torch.equal(fastlogconv.weight_map(labels, backend=backend), first)


@pytest.mark.parametrize("border", BORDERS)
def test_graph_capture(border, backend):
    images = [image_of((203, 211), 20, seed).cuda() for seed in (53, 54)]
    labels = images[0].clone()
    eager = [fastlogconv.weight_map(image, border=border, backend=backend) for image in images]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        weights = fastlogconv.weight_map(labels, border=border, backend=backend)
    for image, expected in zip(images, eager, strict=True):
        labels.copy_(image)
        graph.replay()
        assert torch.equal(weights, expected)


def _losses(labels):
    """Every loss with every setting that adds an operation, and its gradient."""
    target, outputs = (labels > 0).long()[None], torch.zeros(1, 2, *labels.shape, device="cuda")
    class_weight = torch.ones(2, device="cuda")
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


def test_no_synchronisation(backend):
    labels = image_of((203, 211), 20).cuda()
    fastlogconv.weight_map(labels, backend=backend)
    _losses(labels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        fastlogconv.weight_map(labels, backend=backend)
        fastlogconv.separable_conv2d(labels.float(), 0.35, backend=backend)
        fastlogconv.region_weight_map((labels[None] == 1).float(), backend=backend)
        _losses(labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_other_stream(backend):
    labels = image_of((509, 503), 125).cuda()
    expected = fastlogconv.weight_map(labels, backend=backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10**8)
        late = torch.zeros_like(labels).copy_(labels)
        weights = fastlogconv.weight_map(late, backend=backend)
    assert not stream.query()  # it was put behind what the stream was busy with
    stream.synchronize()
    assert torch.equal(weights, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second CUDA device")
def test_second_device(backend):
    labels = image_of((203, 211), 20)
    weights = fastlogconv.weight_map(labels.to("cuda:1"), backend=backend)
    assert weights.device == torch.device("cuda", 1)
    assert torch.cuda.current_device() == 0
    assert torch.equal(weights.cpu(), fastlogconv.weight_map(labels.cuda(), backend=backend).cpu())
