"""Eight Python threads at once, each with other data, settings and functions."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from cases import BORDERS, in_turn, scattered

import fastlogconv

THREADS = 8


def jobs(backend, device):
    """Calls of every function, no two alike."""
    rng = np.random.default_rng(8)
    calls = []
    for i in range(THREADS):
        array = scattered((40 + 7 * i, 90 - 5 * i), 12, 9, rng)
        labels = torch.from_numpy(array).to(device)
        masks = (labels == torch.arange(1, 5, device=device)[:, None, None]).float()
        chosen = dict(border=in_turn(BORDERS, i), bws=2.0 + i, ks=21 + 8 * i, backend=backend)
        euclidean = dict(distance="euclidean", bws=3.0 + i, backend=backend)
        calls += [
            lambda labels=labels, chosen=chosen: fastlogconv.weight_map(labels, **chosen),
            lambda labels=labels, chosen=euclidean: fastlogconv.weight_map(labels, ignore_index=1, **chosen),
            lambda masks=masks, chosen=chosen: fastlogconv.region_weight_map(masks, **chosen),
            lambda masks=masks: fastlogconv.distance_to_weight(masks * 9, backend=backend),
            lambda masks=masks, i=i: fastlogconv.separable_conv2d(masks, 1.0 + i, 9, backend=backend),
        ]
        if (backend, device) == ("native", "cpu"):
            calls += [
                lambda array=array: torch.from_numpy(fastlogconv.preprocess_mask(instlabels=array)),
                lambda array=array: torch.from_numpy(fastlogconv.calculate_weights(instlabels=array)[1]),
            ]
    return calls


@pytest.mark.parametrize("threads_of_each", [1, 2])
def test_results_are_those_of_one_thread(threads_of_each, backend, device, with_threads):
    with_threads(threads_of_each)
    calls = jobs(backend, device)
    expected = [call() for call in calls]
    together = Barrier(THREADS)

    def run(first):
        """All calls, from another one on in each thread."""
        together.wait()
        order = [*range(first, len(calls)), *range(first)]
        return [(i, calls[i]()) for i in order for _ in range(2)]

    with ThreadPoolExecutor(THREADS) as pool:
        for results in pool.map(run, range(0, len(calls), len(calls) // THREADS)):
            assert all(torch.equal(result, expected[i]) for i, result in results)


@pytest.mark.usefixtures("on_cpu")
def test_errors_stay_in_their_thread(backend, device):
    """Every second thread gives labels that are no ids, each its own; nobody else's call fails."""
    labels = torch.from_numpy(scattered((50, 60), 9, 8, np.random.default_rng(9))).double().to(device)
    expected = fastlogconv.weight_map(labels, backend=backend)

    def run(i):
        wrong = labels.clone()
        wrong[20, 30] = i + 0.5
        for _ in range(20):
            if i % 2:
                with pytest.raises(ValueError, match=rf"got {i}\.5"):
                    fastlogconv.weight_map(wrong, backend=backend)
            else:
                assert torch.equal(fastlogconv.weight_map(labels, backend=backend), expected)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(run, range(THREADS)))
