"""Triton kernels without launch logic, installed as `fastlogconv.kernels`."""
