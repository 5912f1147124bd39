import contextlib
import re
import subprocess
import sys
import threading
import types
import warnings

import pytest
import torch
from cases import two_cells

import fastlogconv
from fastlogconv import backends
from fastlogconv.backends import c_interface, devices, native_cuda, triton_launch

CPU = torch.device("cpu")
LABELS = torch.from_numpy(two_cells())
MASKS = torch.stack([LABELS == 1, LABELS == 2]).float()


@pytest.fixture
def served(monkeypatch):
    """The names of the backends in the order in which they are made to serve."""
    names = []
    for name, module in backends.BACKENDS.items():

        def weight_map(*tensors, original=module.weight_map, name=name, **settings):
            names.append(name)
            return original(*tensors, **settings)

        monkeypatch.setattr(module, "weight_map", weight_map)
    return names


@pytest.fixture
def native_not_built(monkeypatch):
    monkeypatch.setattr(backends.native, "why_not", lambda device: "it was not built")
    monkeypatch.setattr(backends, "_warned", False)


def test_every_backend_has_the_same_interface():
    for module in backends.BACKENDS.values():
        for name in (
            "weight_map",
            "region_weight_map",
            "distance_to_weight",
            "separable_conv2d",
            "why_not",
            "describe",
        ):
            assert callable(getattr(module, name))
        assert module.why_not(torch.device("meta"))


def test_backends_run_on_this_cpu():
    reasons = backends.reasons(CPU)
    assert "interpreter" in reasons.pop("triton")
    assert set(reasons.values()) == {None}


def test_auto_takes_the_first(served):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastlogconv.weight_map(LABELS)
    assert served == ["native"]


@pytest.mark.parametrize("missing", [(), ("triton",), ("native",), ("triton", "native")], ids=str)
def test_auto_takes_the_faster_one_on_a_gpu(missing, monkeypatch):
    """By what was measured: CUDA C++ but for distance_to_weight; the other one where it cannot run."""
    for name, module in backends.BACKENDS.items():
        reason = "it was taken away" if name in missing else None
        monkeypatch.setattr(module, "why_not", lambda device, reason=reason: reason)
    for operator in backends.OPERATORS:
        faster = ("triton", "native") if operator == "distance_to_weight" else ("native", "triton")
        expected = next(name for name in (*faster, "reference") if name not in missing)
        assert backends.first(torch.device("cuda", 0), (), operator) == expected
        assert backends.select("auto", torch.device("cuda", 0), (), operator) is backends.BACKENDS[expected]


def test_what_one_backend_lacks_the_other_computes(monkeypatch):
    for module in backends.BACKENDS.values():
        monkeypatch.setattr(module, "why_not", lambda device: None)
    monkeypatch.setattr(backends.native, "LACKS", {"cuda": frozenset({"classes"})}, raising=False)
    device = torch.device("cuda", 0)
    assert backends.first(device, ("classes",), "weight_map") == "triton"
    assert backends.first(device, ("ignore",), "weight_map") == "native"


@pytest.mark.parametrize(
    "version, refused", [("3.0.0", True), ("3.3.1+git", True), ("3.4.0", False), ("4.0", False), ("?", False)]
)
def test_triton_that_came_with_an_old_pytorch_is_refused(version, refused, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", {"triton": version}.__getitem__)
    reason = triton_launch.why_too_old()
    assert reason == (f"its kernels need Triton 3.4 or newer, not {version}" if refused else None)


def test_every_backend_has_its_place_in_the_orders():
    assert set(backends.ORDER_OF_OPERATOR) <= set(backends.OPERATORS)
    for order in (backends.ORDER, *backends.ORDER_OF_OPERATOR.values()):
        assert sorted(order) == sorted(backends.BACKENDS)
        assert order[-1] == "reference"


def test_info_says_what_auto_takes_for_each_operator(monkeypatch):
    for module in backends.BACKENDS.values():
        monkeypatch.setattr(module, "why_not", lambda device: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backends.native, "describe", dict)
    assert fastlogconv.info()["auto"]["cuda"] == "native, triton for distance_to_weight"
    assert fastlogconv.info()["auto"]["cpu"] == "native"


def test_a_device_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(devices, "_able", set())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or (8, 0))
    for device in (torch.device("cuda", 3), torch.device("cuda", 3), torch.device("cuda", 4)):
        assert devices.why_no_gpu(device, (8, 0)) is None
    assert asked == [torch.device("cuda", 3), torch.device("cuda", 4)]
    for _ in range(2):
        assert "8.6" in devices.why_no_gpu(torch.device("cuda", 3), (8, 6))
        assert devices.why_no_gpu(torch.device("cuda"), (8, 0)) is None  # another one may become current
    assert len(asked) == 6


@pytest.mark.parametrize(
    "driver, is_served", [(12040, False), (12090, False), (13000, True), (13010, True), (14000, True)]
)
def test_a_driver_older_than_the_cuda_library_is_a_reason(driver, is_served, monkeypatch):
    class Library:
        def flc_cuda_runtime_version(self):
            return 13000

        def flc_cuda_driver_version(self):
            return driver

    library = Library()
    monkeypatch.setattr(native_cuda, "_load", lambda: library)
    monkeypatch.setattr(native_cuda, "why_no_gpu", lambda device, least: None)
    monkeypatch.setattr(backends.triton, "why_not", lambda device: None)
    device = torch.device("cuda", 0)
    reason = backends.reasons(device)["native"]
    assert backends.first(device, (), "weight_map") == ("native" if is_served else "triton")
    if is_served:
        assert reason is None
    else:
        assert "needs a GPU driver for CUDA 13, and this one serves CUDA 12: update it, or build" in reason


def test_the_current_stream_of_the_tensors_device(monkeypatch):
    tensor = types.SimpleNamespace(get_device=lambda: 1)
    entered = []
    monkeypatch.setattr(devices, "_raw_stream", lambda index: 70 + index)
    monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext(entered.append(index)))
    for current, expected in ((1, []), (0, [1])):
        monkeypatch.setattr(devices, "_current_device", lambda current=current: current)
        with devices.queue_of(tensor) as (device, stream):
            assert (device, stream) == (1, 71)
        assert entered == expected


def test_argument(served):
    for name in ("reference", "native"):
        fastlogconv.weight_map(LABELS, backend=name)
        fastlogconv.WeightTransform(backend=name)(LABELS)
    assert served == ["reference", "reference", "native", "native"]


def test_use_backend(served):
    with fastlogconv.use_backend("reference"):
        fastlogconv.weight_map(LABELS)
        with fastlogconv.use_backend("native"):
            fastlogconv.weight_map(LABELS)
        fastlogconv.weight_map(LABELS)
        fastlogconv.weight_map(LABELS, backend="native")  # an argument wins
    fastlogconv.weight_map(LABELS)
    assert served == ["reference", "native", "reference", "native", "native"]


def test_use_backend_ends_with_an_error(served):
    with pytest.raises(KeyError), fastlogconv.use_backend("reference"):
        raise KeyError
    fastlogconv.weight_map(LABELS)
    assert served == ["native"]


def test_use_backend_holds_for_its_thread(served):
    with fastlogconv.use_backend("reference"):
        thread = threading.Thread(target=fastlogconv.weight_map, args=(LABELS,))
        thread.start()
        thread.join()
    assert served == ["native"]


@pytest.mark.parametrize("value", ["cuda", "", None])
def test_use_backend_refuses_unknown_names(value):
    with (
        pytest.raises(ValueError, match=r"must be one of 'auto', .*'native', .*'reference', got"),
        fastlogconv.use_backend(value),
    ):
        pass


def test_environment_variable(served, monkeypatch):
    monkeypatch.setenv("FASTLOGCONV_BACKEND", "reference")
    fastlogconv.weight_map(LABELS)
    fastlogconv.weight_map(LABELS, backend="native")
    with fastlogconv.use_backend("native"):
        fastlogconv.weight_map(LABELS)
    with fastlogconv.use_backend("auto"):
        fastlogconv.weight_map(LABELS)
    monkeypatch.setenv("FASTLOGCONV_BACKEND", "")
    fastlogconv.weight_map(LABELS)
    assert served == ["reference", "native", "native", "native", "native"]


def test_environment_variable_refuses_unknown_names(monkeypatch):
    monkeypatch.setenv("FASTLOGCONV_BACKEND", "fastest")
    with pytest.raises(ValueError, match=r"FASTLOGCONV_BACKEND must be one of 'auto', .*got 'fastest'"):
        fastlogconv.weight_map(LABELS)


def test_every_operator_follows(monkeypatch):
    called = []

    def recorded(name, result):
        return lambda *args, **settings: (called.append(name), result.clone())[1]

    stand_in = types.SimpleNamespace(
        why_not=lambda device: None,
        weight_map=recorded("weight_map", torch.zeros(1, 4, 5)),
        region_weight_map=recorded("region_weight_map", torch.zeros(4, 5)),
        distance_to_weight=recorded("distance_to_weight", torch.zeros(4, 5)),
        separable_conv2d=recorded("separable_conv2d", torch.zeros(2, 4, 5)),
    )
    monkeypatch.setitem(backends.BACKENDS, "native", stand_in)
    fastlogconv.weight_map(torch.zeros(4, 5))
    fastlogconv.region_weight_map(torch.zeros(2, 4, 5))
    fastlogconv.distance_to_weight(torch.zeros(2, 4, 5))
    fastlogconv.separable_conv2d(torch.zeros(2, 4, 5), 1.0, 3)
    assert called == ["weight_map", "region_weight_map", "distance_to_weight", "separable_conv2d"]


# ------------------------------------------------------------------------------------- where one cannot run


@pytest.mark.usefixtures("native_not_built")
def test_a_named_backend_that_cannot_run_says_why():
    with pytest.raises(RuntimeError, match="backend 'native' cannot run on cpu: it was not built"):
        fastlogconv.weight_map(LABELS, backend="native")
    with (
        pytest.raises(RuntimeError, match="backend 'native' cannot run on cpu: it was not built"),
        fastlogconv.use_backend("native"),
    ):
        fastlogconv.weight_map(LABELS)


@pytest.mark.usefixtures("native_not_built")
def test_auto_says_once_that_it_takes_the_reference():
    with pytest.warns(RuntimeWarning, match=r"slow reference.*native: it was not built\)") as caught:
        weights = fastlogconv.weight_map(LABELS)
        fastlogconv.weight_map(LABELS)
    assert len(caught) == 1
    assert torch.equal(weights, fastlogconv.weight_map(LABELS, backend="reference"))


@pytest.mark.usefixtures("native_not_built")
def test_the_reference_by_name_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastlogconv.weight_map(LABELS, backend="reference")
        with fastlogconv.use_backend("reference"):
            fastlogconv.weight_map(LABELS)


@pytest.mark.usefixtures("native_not_built")
def test_auto_lists_all_reasons_when_none_can_run(monkeypatch):
    monkeypatch.setattr(backends.reference, "why_not", lambda device: "it is switched off")
    with pytest.raises(
        ValueError,
        match=r"no backend can run on cpu \(.*native: it was not built; .*reference: it is switched off\)",
    ):
        fastlogconv.weight_map(LABELS)


@pytest.mark.parametrize(
    "lacks, call",
    [
        ("euclidean", lambda **b: fastlogconv.weight_map(LABELS, distance="euclidean", **b)),
        ("classes", lambda **b: fastlogconv.weight_map(LABELS, classes=LABELS, **b)),
        ("ignore", lambda **b: fastlogconv.weight_map(LABELS, ignore=LABELS > 1, **b)),
        ("ignore", lambda **b: fastlogconv.weight_map(LABELS, ignore_index=2, **b)),
        ("euclidean", lambda **b: fastlogconv.region_weight_map(MASKS, distance="euclidean", **b)),
        ("ignore", lambda **b: fastlogconv.region_weight_map(MASKS, ignore=LABELS > 1, **b)),
    ],
)
def test_a_backend_is_not_asked_for_what_it_lacks(lacks, call, monkeypatch):
    monkeypatch.setattr(backends, "_warned", False)
    monkeypatch.setattr(backends.native, "LACKS", {"cpu": frozenset({lacks})}, raising=False)
    with pytest.warns(RuntimeWarning, match=rf"native: it does not compute {lacks} yet"):
        weights = call()
    assert torch.equal(weights, call(backend="reference"))
    with pytest.raises(RuntimeError, match=f"'native' cannot run on cpu: it does not compute {lacks} yet"):
        call(backend="native")
    assert fastlogconv.info()["backends"]["native"]["lacks on cpu"] == lacks
    monkeypatch.setattr(backends.native, "LACKS", {"cpu": {"euclidean", "classes", "ignore"} - {lacks}})
    assert call(backend="native").shape == weights.shape
    fastlogconv.weight_map(LABELS, backend="native")


def test_a_cuda_library_that_cannot_be_loaded_is_reported(monkeypatch, tmp_path):
    broken = tmp_path / c_interface.CUDA_LIBRARY.name
    broken.write_text("not a library")
    monkeypatch.setattr(c_interface, "CUDA_LIBRARY", broken)
    monkeypatch.setattr(native_cuda, "_load", native_cuda._load.__wrapped__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    problem = f"{broken.name} could not be loaded: "
    assert backends.native.describe()["CUDA library"].startswith(problem)
    with pytest.raises(RuntimeError, match=f"backend 'native' cannot run on cuda: {re.escape(problem)}"):
        backends.select("native", torch.device("cuda"))


# ----------------------------------------------------------------------------------------------------- info


def test_info():
    info = fastlogconv.info()
    assert info["versions"]["fastlogconv"] == fastlogconv.__version__
    assert info["versions"]["torch"] == torch.__version__
    assert set(info["versions"]) >= {"triton", "numpy", "scipy", "python", "platform"}
    assert list(info["backends"]) == list(backends.BACKENDS)
    assert info["devices"]["cpu"] == backends.reasons(CPU)
    assert info["auto"]["cpu"] == "native"
    if not torch.cuda.is_available():
        assert all(reason and "CUDA" in reason for reason in info["devices"]["cuda"].values())


def test_info_prints_as_a_report():
    report = str(fastlogconv.info())
    assert repr(fastlogconv.info()) == report
    assert f"torch        {torch.__version__}\n" in report
    assert "on cpu (auto: native)\n" in report
    assert "\n  native           can run\n" in report
    for description in fastlogconv.info()["backends"].values():
        for key, value in description.items():
            assert f"  {key:<16} {value}\n" in report


@pytest.mark.usefixtures("native_not_built")
def test_info_says_what_is_missing():
    info = fastlogconv.info()
    assert info["devices"]["cpu"]["native"] == "it was not built"
    assert info["devices"]["cpu"]["reference"] is None
    assert info["auto"]["cpu"] == "reference"
    assert "\n  native           it was not built\n" in str(info)


def test_import_is_silent_and_needs_no_extras():
    code = (
        "import sys\n"
        "missing = ['triton', 'matplotlib', 'tifffile', 'imageio', 'skimage', 'tqdm', 'PIL', 'fastai']\n"
        "sys.modules.update(dict.fromkeys(missing))\n"
        "import fastlogconv, torch\n"
        "fastlogconv.WeightTransform()(torch.zeros(1, 3, 3))\n"
        "from fastlogconv.backends import native_cuda\n"
        "assert native_cuda._load.cache_info().currsize == 0\n"  # it waits for a CUDA tensor
        "fastlogconv.info()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_public_names():
    assert fastlogconv.__all__ == sorted(fastlogconv.__all__)
    assert " ".join(fastlogconv.__all__) == (
        "SeparableConv2D UNetWeights WeightSettings WeightTransform WeightTransformSingle "
        "WeightedCrossEntropyLoss WeightedDiceCELoss WeightedDiceLoss binary_to_instances calculate_weights "
        "create_pdf distance_to_weight info lambda_kernel nearest_instances plot_weight_parameters "
        "preprocess_mask random_center random_centers region_weight_map resize_nearest separable_conv2d "
        "separate_touching show signed_distance_map use_backend weight_map weighted_cross_entropy "
        "weighted_dice_loss"
    )
    for name in fastlogconv.__all__:
        assert getattr(fastlogconv, name).__doc__
