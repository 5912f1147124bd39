"""Derivatives of the convolution in all modes, one inside the other, against its matrix."""

import warnings

import numpy as np
import pytest
import torch
from test_separable_conv2d import by_scipy, widest
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

from fastlogconv import separable_conv2d
from fastlogconv.codes import PADDING_MODES

SHAPE = (2, 3, 4)


@pytest.fixture
def no_slow_loop():
    with warnings.catch_warnings():
        if hasattr(torch.library, "register_vmap"):
            warnings.filterwarnings("error", "There is a performance drop")
        yield


@pytest.fixture(params=PADDING_MODES)
def convolution(request, backend, device, no_slow_loop):
    """(the convolution of [2, 3, 4], its matrix as a tensor [2, 3, 4, 2, 3, 4], an input)."""
    ks = widest(SHAPE, 7, request.param)

    def convolve(input):
        return separable_conv2d(input, 1.3, ks, request.param, backend=backend)

    units = np.eye(24).reshape(24 * 2, 3, 4)
    columns = torch.from_numpy(by_scipy(units, 1.3, ks, request.param)).reshape(24, 24)
    matrix = columns.T.reshape(*SHAPE, *SHAPE).to(device)
    generator = torch.Generator().manual_seed(9)
    return convolve, matrix, torch.randn(SHAPE, dtype=torch.float64, generator=generator).to(device)


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_forward_mode(convolution):
    convolve, _, x = convolution
    tangent = x.flip(2)
    assert_close(jvp(convolve, (x,), (tangent,)), (convolve(x), convolve(tangent)))
    assert_close(linearize(convolve, x)[1](tangent), convolve(tangent))
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), forward_ad.dual_level():
            dual = forward_ad.unpack_dual(convolve(forward_ad.make_dual(x, tangent)))
            assert_close(dual.tangent, convolve(tangent))


def test_jacobians(convolution):
    convolve, matrix, x = convolution
    assert_close(jacrev(convolve)(x), matrix)
    assert_close(jacfwd(convolve)(x), matrix)
    assert_close(torch.autograd.functional.jacobian(convolve, x, vectorize=True), matrix)
    forward_mode = dict(vectorize=True, strategy="forward-mode")
    assert_close(torch.autograd.functional.jacobian(convolve, x, **forward_mode), matrix)
    assert_close(vjp(convolve, x)[1](x)[0], torch.einsum("nyxijk,nyx", matrix, x))


def cubes(convolve):
    return lambda x: (convolve(x) ** 3).sum()


def test_second_derivatives(convolution):
    convolve, matrix, x = convolution
    gradient = torch.einsum("nyxijk,nyx", matrix, 3 * convolve(x) ** 2)
    second = torch.einsum("nyxijk,nyx,nyxpqr->ijkpqr", matrix, 6 * convolve(x), matrix)
    loss = cubes(convolve)
    assert_close(grad(loss)(x), gradient)
    assert_close(hessian(loss)(x), second)
    assert_close(jacrev(jacfwd(loss))(x), second)
    assert_close(jacrev(grad(loss))(x), second)
    assert_close(jacfwd(jacfwd(loss))(x), second)
    tangent = x.flip(1)
    product = torch.einsum("ijkpqr,pqr", second, tangent)
    assert_close(jvp(grad(loss), (x,), (tangent,))[1], product)
    assert_close(grad(lambda x: jvp(loss, (x,), (tangent,))[1])(x), product)
    assert_close(jvp(lambda x: jvp(loss, (x,), (tangent,))[1], (x,), (x,))[1], (product * x).sum())
    # The tangent is a variable, too.
    assert_close(grad(lambda tangent: jvp(loss, (x,), (tangent,))[1])(tangent), gradient)
    assert_close(
        jvp(lambda tangent: jvp(loss, (x,), (tangent,))[1], (tangent,), (x,))[1], (gradient * x).sum()
    )
    with forward_ad.dual_level():
        leaf = tangent.clone().requires_grad_()
        slope = forward_ad.unpack_dual(loss(forward_ad.make_dual(x, leaf))).tangent
        assert_close(torch.autograd.grad(slope, leaf)[0], gradient)
    assert_close(grad(lambda x: (grad(loss)(x) * tangent).sum())(x), product)
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    assert_close(torch.autograd.grad((first * tangent).sum(), leaf)[0], product)


def test_batches(convolution):
    convolve, _, x = convolution
    batch = torch.stack([x, 2 * x.flip(0), x.flip(1) - 1])
    expected = torch.stack([convolve(x) for x in batch])
    for dim in range(4):
        assert_close(
            vmap(convolve, in_dims=dim, out_dims=dim)(batch.movedim(0, dim)), expected.movedim(0, dim)
        )
    assert_close(vmap(vmap(convolve))(batch.expand(2, *batch.shape)), expected.expand(2, *batch.shape))
    assert_close(vmap(convolve, chunk_size=2)(batch), expected)
    loss = cubes(convolve)
    gradients = torch.stack([grad(loss)(x) for x in batch])
    assert_close(vmap(grad(loss))(batch), gradients)
    assert_close(grad(lambda batch: vmap(loss)(batch).sum())(batch), gradients)
    assert_close(vmap(hessian(loss))(batch), torch.stack([hessian(loss)(x) for x in batch]))
    tangents = batch.flip(0)
    assert_close(vmap(lambda x, t: jvp(convolve, (x,), (t,))[1])(batch, tangents), expected.flip(0))
    leaf = batch.clone().requires_grad_()
    vmap(loss)(leaf).sum().backward()
    assert_close(leaf.grad, gradients)
