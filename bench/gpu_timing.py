"""What a call takes on a CUDA device: on the GPU, as it comes, and the host."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of a call, medians. None: it was not, or could not be, measured."""

    graph: float | None  # replayed from a CUDA graph: the GPU alone
    eager: float  # as it comes, from an idle GPU
    host: float | None  # until the call returns


class Stopwatch:
    """Times calls on the current CUDA device; the L2 cache is emptied before each."""

    def __init__(self, seconds: float = 0.15, most: int = 50) -> None:
        self.seconds, self.most = seconds, most  # of each of the three

    def once(self, call: Call) -> float:
        """Seconds of a single call, the host's part included."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    def times(self, call: Call, in_graph: bool) -> Times:
        """Of a call that is warm; `in_graph`: whether it can be captured."""
        rounds = max(3, min(self.most, int(self.seconds / max(self.once(call), 1e-5))))
        eager, host = self._by_events(call, rounds)
        if not in_graph:
            return Times(None, eager, host)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return Times(self._by_events(graph.replay, rounds)[0], eager, host)

    def _by_events(self, call: Call, rounds: int) -> tuple[float, float]:
        cache = torch.empty(2**28, dtype=torch.uint8, device="cuda")  # larger than any L2
        device, host = [], []
        for _ in range(rounds):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            cache.zero_()
            torch.cuda.synchronize()
            start.record()
            begun = time.perf_counter()
            call()
            host.append(time.perf_counter() - begun)
            end.record()
            torch.cuda.synchronize()
            device.append(start.elapsed_time(end) / 1e3)
        return statistics.median(device), statistics.median(host)
