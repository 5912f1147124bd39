"""Lightning: the weights are a submodule, computed on the device of the batch.

The cells and the network are those of train_cells.py. Needs Lightning, too: pip install ".[demo]" lightning.

    python examples/lightning_cells.py            # a minute or two on a CPU
    python examples/lightning_cells.py --quick    # seconds: to see that it runs
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from train_cells import UNet, make_cells, score, segment

from fastlogconv import UNetWeights, WeightedCrossEntropyLoss, separate_touching

try:
    import lightning
except ModuleNotFoundError as missing:
    raise SystemExit(
        f'the example needs {missing.name}: pip install ".[demo]" lightning in the source tree, or '
        '"fastlogconv[demo]" lightning, has all that it needs'
    ) from None


class Cells(lightning.LightningModule):
    """Images [B, H, W] and ids of their cells [B, H, W] in, a network that separates cells out."""

    def __init__(self, bwf: float = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = UNet()
        self.weights = UNetWeights(bwf=bwf)
        self.criterion = WeightedCrossEntropyLoss()

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        image, cells = batch
        target = (separate_touching(cells) > 0).long()  # with the gaps that the weights are for
        loss = self.criterion(self.model(image), target, self.weights(cells))
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 3e-3)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps")
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args(argv)
    lightning.seed_everything(0, verbose=False)
    rng = np.random.default_rng(0)
    images, cells = make_cells(rng, 8 if args.quick else 64, 48 if args.quick else 96)
    module = Cells()
    trainer = lightning.Trainer(
        max_steps=2 if args.quick else args.steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=not args.quick, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(TensorDataset(images, cells), batch_size=4, shuffle=True))
    test_images, test_cells = make_cells(rng, 8, images.shape[-1])
    result = score(segment(module.model.cpu().eval(), test_images), test_cells.numpy())
    print(", ".join(f"{name} {value:.3f}" for name, value in result.items()))
    return result


if __name__ == "__main__":
    main()
