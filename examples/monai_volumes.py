"""MONAI, in 3-D: volumes of touching cells, weighed behind the augmentation, found by a sliding window.

Makes its own volumes, with pixels 0.5 x 0.5 x 1.5 um as their metadata say. Needs MONAI and SciPy:
pip install ".[monai]" scipy.

    python examples/monai_volumes.py            # some minutes on a CPU
    python examples/monai_volumes.py --quick    # seconds: to see that it runs
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from fastlogconv import WeightedDiceCELoss

try:
    from monai.data import CacheDataset, MetaTensor, ThreadDataLoader
    from monai.inferers import sliding_window_inference
    from monai.networks.nets import UNet
    from monai.transforms import (
        Compose,
        RandCropByPosNegLabeld,
        RandFlipd,
        RandGaussianNoised,
        RandRotate90d,
        ScaleIntensityd,
    )
    from scipy import ndimage

    from fastlogconv.integrations.monai import WeightMapd
except ModuleNotFoundError as missing:
    raise SystemExit(
        f'the example needs {missing.name}: pip install ".[monai]" scipy in the source tree, or '
        '"fastlogconv[monai]" scipy, has all that it needs'
    ) from None

SPACING = (0.5, 0.5, 1.5)  # um
BOTH = ["image", "label"]


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args(argv)
    steps, volumes = (2, 2) if args.quick else (args.steps, 16)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = train([make_volume(rng) for _ in range(volumes)], steps)
    test = make_volume(rng)
    found = segment(model, test["image"])
    cells = int(test["label"].max())
    objects = int(ndimage.label(found)[1])
    target = test["label"].numpy()[0] > 0
    dice = 2 * (found & target).sum() / (found.sum() + target.sum())
    print(f"test volume: Dice {dice:.3f}, {objects} objects found where there are {cells} cells")
    return {"Dice": float(dice), "objects": objects, "cells": cells}


def make_volume(rng: np.random.Generator, shape: tuple[int, ...] = (64, 64, 24)) -> dict[str, MetaTensor]:
    """An image and the ids of its cells, channel first, with their spacing: ellipsoids that may touch."""
    grid = np.stack(np.indices(shape), axis=-1) * SPACING
    labels, nearest = np.zeros(shape, np.int32), np.ones(shape)
    for cell in range(1, 40):
        centre = rng.uniform(0, 1, 3) * np.multiply(shape, SPACING)
        distance = np.linalg.norm((grid - centre) / rng.uniform(3, 5, 3), axis=-1)
        inside = distance < nearest
        labels[inside], nearest[inside] = cell, distance[inside]
    labels = np.unique(labels, return_inverse=True)[1].reshape(shape)  # without those that are covered
    edge = ndimage.grey_dilation(labels, 3) != labels
    image = ndimage.gaussian_filter((labels > 0) - 0.5 * (edge & (labels > 0)), 0.7)
    image += rng.normal(0, 0.1, shape)
    affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
    return {
        "image": MetaTensor(torch.from_numpy(image[None]).float(), affine=affine),
        "label": MetaTensor(torch.from_numpy(labels[None]).int(), affine=affine),
    }


def train(volumes: list[dict[str, MetaTensor]], steps: int) -> UNet:
    transforms = Compose(
        [
            ScaleIntensityd("image"),  # the last one whose result is kept: random ones follow
            RandCropByPosNegLabeld(BOTH, "label", spatial_size=(32, 32, 16), num_samples=2),
            RandFlipd(BOTH, prob=0.5, spatial_axis=0),
            RandRotate90d(BOTH, prob=0.75, spatial_axes=(0, 1)),
            RandGaussianNoised("image", prob=0.5, std=0.05),
            # Behind all that moves voxels. Sigmas have the unit of the metadata: um.
            WeightMapd("label", preset="unet2019", bwf=10, bws=2, fds=4, spacing="affine", spatial_dims=3),
        ]
    )
    data = CacheDataset(volumes, transforms, num_workers=1, progress=False)
    loader = ThreadDataLoader(data, batch_size=2, num_workers=0, shuffle=True)
    model = UNet(3, 1, 2, channels=(8, 16, 32), strides=(2, 2), norm="instance")
    criterion = WeightedDiceCELoss(include_background=False)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    step = 0
    while step < steps:
        for batch in loader:
            target = (batch["separated"] > 0).long()  # with the gaps that the weights are for
            loss = criterion(model(batch["image"]), target, batch["weight"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 20 == 0 or step == steps:
                print(f"step {step}: loss {loss.item():.3f}", flush=True)
            if step == steps:
                break
    return model.eval()


@torch.no_grad()
def segment(model: UNet, image: MetaTensor) -> np.ndarray:
    """Where the network sees cells, bool [H, W, D]."""
    scaled = ScaleIntensityd("image")({"image": image})["image"]
    logits = sliding_window_inference(scaled[None], (32, 32, 16), 4, model, overlap=0.25, mode="gaussian")
    return (logits[0].argmax(0) == 1).numpy()


if __name__ == "__main__":
    main()
