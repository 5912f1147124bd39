"""Launches of Triton's kernels: the first of a kind by Triton, further ones without its binding of arguments.

There is no GPU here: what Triton compiled is run from its PTX on the CPU, or its arguments are looked at.
"""

import contextlib
import threading
import warnings

import gpu_on_cpu
import pytest
import torch
from cases import disk

import fastlogconv
from fastlogconv.backends import triton_launch

pytestmark = pytest.mark.skipif(
    gpu_on_cpu.why_no_triton() is not None, reason=str(gpu_on_cpu.why_no_triton())
)
host_cost = pytest.importorskip("bench.host_cost")
SHAPE = (61, 67)


def labels_of(*centres, shape=SHAPE):
    labels = torch.zeros(1, *shape, dtype=torch.int32)
    for i, (y, x) in enumerate(centres, start=1):
        labels[0, torch.from_numpy(disk(shape, y, x, 5))] = i
    return labels


LABELS = labels_of((8, 9), (30, 40), (52, 12)), labels_of((40, 9), (10, 50))
MASKS = tuple(torch.stack([labels[0] == 1, labels[0] == 2]).float() * 0.5 for labels in LABELS)
CASES = {
    "farthest": lambda i: fastlogconv.weight_map(LABELS[i], border="farthest", backend="triton"),
    "exact, options": lambda i: fastlogconv.weight_map(
        LABELS[i], classes=LABELS[i] % 2 + 1, ignore=LABELS[1 - i] == 1, distance="euclidean",
        backend="triton",
    ),
    "two nearest": lambda i: fastlogconv.weight_map(
        LABELS[i], ignore=LABELS[1 - i] == 1, preset="unet2019", gaps=False, backend="triton"
    ),
    "regions": lambda i: fastlogconv.region_weight_map(MASKS[i], backend="triton"),
    "distances": lambda i: fastlogconv.distance_to_weight(MASKS[i] * 9, MASKS[i][0] > 0, backend="triton"),
    "convolution": lambda i: fastlogconv.separable_conv2d(MASKS[i], 0.35, 31, backend="triton"),
}  # fmt: skip


@pytest.fixture
def by_triton(monkeypatch):
    """The names of the kernels that Triton launches."""
    names = []

    def noted(launch, original=triton_launch.by_triton):
        names.append(launch.name)
        return original(launch)

    monkeypatch.setattr(triton_launch, "by_triton", noted)
    return names


@contextlib.contextmanager
def running_ptx(monkeypatch):
    """Within it, launches run on the CPU as compiled for sm_80, and reach every tensor in sight."""
    from gpu_on_cpu.ptx import Module

    memory = []

    def noted(make):
        def made(*arguments, **options):
            memory.append(make(*arguments, **options))
            if make is not torch.zeros and memory[-1].is_floating_point():
                memory[-1].fill_(torch.nan)
            elif make is not torch.zeros:
                memory[-1].fill_(0x5A)
            return memory[-1]

        return made

    def address(self, original=torch.Tensor.data_ptr):
        memory.append(self)
        return original(self)

    def launcher(source, metadata):
        kernels = source.fn.device_caches[0][0].values()
        passed = [kind != "constexpr" for kind in source.signature.values()]

        def launch(programs, _1, _2, _stream, _function, _metadata, _launched, _enter, _exit, *arguments):
            compiled = next(kernel for kernel in kernels if kernel.metadata is metadata)
            module = Module(compiled.asm["ptx"])
            given = [value for value, is_passed in zip(arguments, passed, strict=True) if is_passed]
            block = (32 * metadata.num_warps,)
            assert module.launch(
                metadata.name, (programs,), block, given, metadata.shared, reachable=list(memory)
            ) == 0  # fmt: skip

        return launch

    with monkeypatch.context() as patched, host_cost.triton(launcher, capability=80):
        patched.setattr(torch, "empty", noted(torch.empty))
        patched.setattr(torch, "zeros", noted(torch.zeros))
        patched.setattr(torch.Tensor, "data_ptr", address)
        yield


@pytest.mark.parametrize("name", CASES)
def test_further_calls_compute_the_same(name, by_triton, monkeypatch):
    call = CASES[name]
    with running_ptx(monkeypatch):
        first = call(0)
        launches = len(by_triton)
        assert launches > 0
        warm = [call(1), call(0)]
        assert len(by_triton) == launches
        host_cost.forget()
        cold = [call(1), first]
        assert len(by_triton) == 2 * launches
    for result, expected in zip(warm, cold, strict=True):
        assert result.isfinite().all() and torch.equal(result, expected)


# --------------------------------------------------------------------------------- what decides on a launch


@pytest.fixture
def noted():
    """(thread, arguments) of every launch, none of which does anything."""
    launches = []

    def launcher(source, metadata):
        names = source.fn.arg_names

        def launch(*arguments):
            values = [v.data_ptr() if isinstance(v, torch.Tensor) else v for v in arguments[9:]]
            launches.append((threading.current_thread(), dict(zip(names, values, strict=True))))

        return launch

    with host_cost.triton(launcher):
        yield launches


def test_another_layout_is_launched_by_triton(noted, by_triton):
    labels = torch.zeros(2, 64, 64, dtype=torch.int32)
    once = ["list_cells", "weigh_tiles"]
    odd = torch.zeros(2 * 64 * 64 + 1, dtype=torch.int32)[1:].view(2, 64, 64)  # no multiple of 16
    for input, options in (
        (labels, {}),
        (labels.mT, {}),
        (labels[:1], {}),
        (labels.long(), {}),
        (odd, {}),
        (labels, dict(fds=11)),
        (labels, dict(classes=labels.clone())),
        (labels, dict(ignore=labels > 0)),
    ):
        by_triton.clear()
        for _ in range(3):
            fastlogconv.weight_map(input, **options, backend="triton")
        assert by_triton == once
    assert len(noted) == 8 * 3 * 2


def test_a_tensor_that_comes_twice_is_not_mistaken_for_the_other(noted, by_triton):
    labels, classes = (torch.zeros(1, 64, 64, dtype=torch.int32) for _ in range(2))
    fastlogconv.weight_map(labels, classes=labels, backend="triton")
    fastlogconv.weight_map(labels, classes=classes, backend="triton")
    fastlogconv.weight_map(labels, classes=classes, backend="triton")
    assert len(by_triton) == 4  # of the first two calls
    for _, arguments in noted[2::2]:
        assert arguments["labels_ptr"] == labels.data_ptr() != arguments["classes_ptr"] == classes.data_ptr()


def test_what_is_found_out_on_the_way_is_found_out_again(noted, by_triton):
    """Classes are numbered by PyTorch, in tensors that are new at each call."""
    labels = torch.zeros(1, 64, 64, dtype=torch.int32)
    for _ in range(3):
        fastlogconv.weight_map(labels, classes=labels + 1, border="farthest", backend="triton")
    assert len(by_triton) == 6


def test_hooks_see_every_launch(noted, by_triton):
    from triton import knobs

    labels = torch.zeros(1, 64, 64, dtype=torch.int32)

    def call():
        fastlogconv.weight_map(labels, backend="triton")

    call()
    chain = knobs.runtime.launch_enter_hook
    with knobs.runtime.scope():
        if chain is None:
            knobs.runtime.launch_enter_hook = call
        else:
            chain.add(call)
        call()
        if chain is not None:
            chain.remove(call)
    assert len(by_triton) == 4
    call()
    assert len(by_triton) == 4


def test_threads_do_not_mix_their_arguments(noted):
    per_thread = 200
    calls = {}

    def work():
        labels = torch.zeros(1, 64, 64, dtype=torch.int32)
        results = [fastlogconv.weight_map(labels, backend="triton") for _ in range(per_thread)]
        calls[threading.current_thread()] = labels, results

    work()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for thread, (labels, results) in calls.items():
        launches = [arguments for by, arguments in noted if by == thread]
        assert len(launches) == 2 * per_thread
        for listing, weighing, result in zip(launches[::2], launches[1::2], results, strict=True):
            assert listing["labels_ptr"] == labels.data_ptr()
            assert weighing["out_ptr"] == result.data_ptr()
            for name in ("first_keys_ptr", "entries_ptr", "words_ptr", "marks_ptr"):
                assert listing[name] == weighing[name]


def test_an_unknown_triton_launches_for_itself(noted, by_triton, monkeypatch):
    monkeypatch.setattr(triton_launch, "KNOWN_VERSIONS", ((3, 0), (3, 1)))
    monkeypatch.setattr(triton_launch, "why_by_triton", triton_launch.why_by_triton.__wrapped__)
    labels = torch.zeros(1, 64, 64, dtype=torch.int32)
    for _ in range(3):
        fastlogconv.weight_map(labels, backend="triton")
    assert len(by_triton) == 6
    assert "not known here" in fastlogconv.info()["backends"]["triton"]["warm launches"]


def test_no_warning_reaches_a_user(noted):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastlogconv.weight_map(torch.zeros(1, 96, 64, dtype=torch.int32), backend="triton")


def test_every_launch_says_whether_operations_are_fused(noted):
    fastlogconv.weight_map(torch.zeros(1, 64, 64, dtype=torch.int32), backend="triton")
    compiled = [
        kernel
        for function in triton_launch.kernels().values()
        for kernel in function.device_caches.get(0, ({},))[0].values()
    ]
    assert len(compiled) == 2
    assert all(kernel.metadata.enable_fp_fusion for kernel in compiled)


def test_launches_of_every_kernel_say_it():
    """Whatever a version of Triton takes for granted, all compile the same operations."""
    from gpu_on_cpu.triton_kernels import collected

    with collected() as launches:
        for call in CASES.values():
            call(0)
        fastlogconv.weight_map(LABELS[0], classes=LABELS[0] % 2 + 1, preset="unet2019", backend="triton")
        fastlogconv.nearest_instances(torch.cat(LABELS)[None], spatial_dims=3, backend="triton")
    assert {launch.name for launch in launches} == set(triton_launch.kernels())
    assert all(launch.options["enable_fp_fusion"] is True for launch in launches)


def test_pieces_of_scratch_lie_apart_and_are_aligned():
    shapes = [((3,), torch.int64), ((0,), torch.int32), ((5, 7), torch.int32), ((2, 2), torch.float64)]
    memory, pieces = triton_launch.scratch(torch.device("cpu"), *shapes)
    for i, (piece, (shape, dtype)) in enumerate(zip(pieces, shapes, strict=True)):
        assert piece.shape == shape and piece.dtype == dtype
        assert (piece.data_ptr() - memory.data_ptr()) % triton_launch.ALIGNMENT == 0 or not piece.numel()
        piece.fill_(i)
    for i, piece in enumerate(pieces):
        assert (piece == i).all()
