"""Which instances are of which class, found before the Triton kernels run where every instance has a say.

Nothing here waits for the GPU, so it can be captured in a CUDA graph with the launches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def number_classes(labels: Tensor, classes: Tensor, ignore: Tensor | None) -> tuple[Tensor, Tensor]:
    """Classes numbered from 1 on in each image, and how many instances each has.

    Returns int32 [B, H, W] and int64 [B, 1 + H * W], 0 throughout in an image where an id is absent: no class
    has a farthest instance then.
    """
    classes = classes.clamp(min=0) if ignore is None else classes.clamp(min=0).masked_fill(ignore, 0)
    ids = torch.where(classes > 0, labels.to(torch.int64), 0).clamp(min=0).flatten(1)
    ids, by_id = ids.sort(dim=1)
    zero = torch.zeros_like(ids[:, :1])
    complete = (ids.diff(dim=1, prepend=zero) != 0).sum(dim=1) == ids[:, -1]
    sorted_classes, by_class = classes.flatten(1).gather(1, by_id).sort(dim=1, stable=True)
    ids, pixels = ids.gather(1, by_class), by_id.gather(1, by_class)
    new_class = sorted_classes.diff(dim=1, prepend=zero.to(torch.int32)) != 0
    numbers = new_class.cumsum(dim=1)
    new_instance = (ids > 0) & (new_class | (ids.diff(dim=1, prepend=zero) != 0))
    instances = torch.zeros((len(ids), 1 + ids.shape[1]), dtype=torch.int64, device=ids.device)
    instances.scatter_add_(1, numbers, (new_instance & complete[:, None]).to(torch.int64))
    numbers = torch.zeros_like(numbers).scatter_(1, pixels, numbers)
    return numbers.to(torch.int32).view(labels.shape), instances
