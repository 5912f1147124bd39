import lightning
import pytest
import torch
import torch.nn.functional as F

from fastlogconv import WeightTransform


class Segmentation(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Conv2d(1, 1, 3, padding=1)
        self.weights = WeightTransform(border="second_nearest", bwf=10)
        self.losses = []

    def training_step(self, batch, index):
        image, labels = batch
        loss = F.binary_cross_entropy_with_logits(
            self.model(image)[:, 0], (labels > 0).float(), self.weights(labels)
        )
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_module(precision, labels, tmp_path):
    torch.manual_seed(0)
    image = (labels > 0)[None].float()
    loader = torch.utils.data.DataLoader([(image, labels)] * 40, batch_size=4)
    module = Segmentation()
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", precision=precision, logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert len(module.losses) == 20
    assert module.losses[-1] < 0.8 * module.losses[0]
    restored = Segmentation.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert torch.equal(restored.weights(labels), module.weights(labels))


def test_example(examples):
    import lightning_cells

    assert set(lightning_cells.main(["--quick"])) == {"F1", "merged pairs"}
