"""segmentation_models.pytorch: one of its networks, with a weighted loss.

The cells are those of train_cells.py. Needs segmentation_models.pytorch, too: pip install ".[demo]"
segmentation-models-pytorch.

    python examples/smp_cells.py            # a few minutes on a CPU
    python examples/smp_cells.py --quick    # seconds: to see that it runs
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from train_cells import make_cells, score, segment

try:
    import segmentation_models_pytorch as smp
except ModuleNotFoundError as missing:
    raise SystemExit(
        f'the example needs {missing.name}: pip install ".[demo]" segmentation-models-pytorch in the source '
        'tree, or "fastlogconv[demo]" segmentation-models-pytorch, has all that it needs'
    ) from None

from fastlogconv import UNetWeights, WeightedDiceCELoss, separate_touching


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    images, cells = make_cells(rng, 8 if args.quick else 64, 64 if args.quick else 96)
    # Of one channel: sigmoid and binary cross entropy. Weights of an encoder trained on ImageNet: "imagenet".
    model = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1)
    weigh = UNetWeights(bwf=10)
    criterion = WeightedDiceCELoss()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for step in range(2 if args.quick else args.steps):
        chosen = torch.randint(len(images), (4,))
        image, cell = images[chosen, None], cells[chosen]
        target = (separate_touching(cell) > 0).long()  # with the gaps that the weights are for
        loss = criterion(model(image), target, weigh(cell))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.eval()
    test_images, test_cells = make_cells(rng, 8, images.shape[-1])
    found = segment(lambda image: _two_channels(model(image[:, None])), test_images)
    result = score(found, test_cells.numpy())
    print(", ".join(f"{name} {value:.3f}" for name, value in result.items()))
    return result


def _two_channels(logits: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


if __name__ == "__main__":
    main()
