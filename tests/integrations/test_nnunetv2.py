"""nnU-Net's trainer with weights: loss, steps, how it is found; the whole way: test_nnunetv2_run.py."""

import subprocess
import sys

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from fastlogconv import (
    WeightSettings,
    binary_to_instances,
    resize_nearest,
    separate_touching,
    weight_map,
    weighted_cross_entropy,
)
from fastlogconv.integrations import nnunet
from fastlogconv.integrations.nnunet.trainer import VARIABLE, settings_of

from .nnunet_plans import dataset, plans

ALL_ONE = "preset=unet2015 balance=none bwf=0 fbr=1"
IGNORED = {"background": 0, "nucleus": 1, "membrane": 2, "ignore": 3}
REGIONS = {"background": 0, "cell": [1, 2], "nucleus": 2}
SETTINGS = WeightSettings.preset("unet2019", bwf=10)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    preprocessed = tmp_path / "preprocessed" / "Dataset999_Cells" / "tiny"
    preprocessed.mkdir(parents=True)
    (preprocessed / "a.b2nd").touch()  # whose ending tells nnU-Net how data are stored
    monkeypatch.delenv(VARIABLE, raising=False)


def trainer_of(dims=2, kind=nnunet.nnUNetTrainerWeightMap, labels=None, order=None, **of_plans):
    torch.manual_seed(0)
    made = kind(plans(dims, **of_plans), "tiny", 0, dataset(labels, order), torch.device("cpu"))
    made.initialize()
    return made


def segmentation(dims=2, highest=1):
    """Labels [2, 1, ...] int16 up to `highest`, in blocks, and ids of touching instances there."""
    shape = (2, 1, 32, 32) if dims == 2 else (2, 1, 8, 16, 16)
    ids = torch.zeros(shape, dtype=torch.int16)
    ids[..., 2:9, 2:6], ids[..., 2:9, 6:10], ids[0, ..., 10:14, 4:8] = 1, 2, 7
    generator = torch.Generator().manual_seed(0)
    labels = (ids > 0).short()
    if highest > 1:
        drawn = torch.randint(1, highest + 1, (8,), generator=generator, dtype=torch.int16)
        labels = torch.where(ids > 0, drawn[ids.long()], 0)
        labels[..., -2:, :] = highest
    return labels, ids


def batch_of(trainer, segmentation):
    """As nnU-Net's data loader makes it."""
    transforms = trainer.get_validation_transforms(
        trainer._get_deep_supervision_scales(),
        regions=trainer.label_manager.foreground_regions if trainer.label_manager.has_regions else None,
        ignore_label=trainer.label_manager.ignore_label,
    )
    samples = [transforms(segmentation=each)["segmentation"] for each in segmentation.clone()]
    targets = [torch.stack(scale) for scale in zip(*samples, strict=True)]
    return {"data": torch.randn(2, 1, *segmentation.shape[2:]), "target": targets}


# ------------------------------------------------------------------------------------------------ the loss


KINDS = {
    "labels": (None, None, 1),
    "several labels": ({"background": 0, "a": 1, "b": 2}, None, 2),
    "ignore": (IGNORED, None, 3),
    "regions": (REGIONS, [1, 2], 2),
    "regions, ignore": (REGIONS | {"ignore": 3}, [1, 2], 3),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_one_give_the_loss_of_nnunet(kind, batch_dice, dims, monkeypatch):
    """And the same gradients, Dice of the validation and all."""
    monkeypatch.setenv(VARIABLE, ALL_ONE)
    labels, order, highest = KINDS[kind]
    results = []
    for of in (nnUNetTrainer, nnunet.nnUNetTrainerWeightMap):
        trainer = trainer_of(dims, of, labels, order, batch_dice=batch_dice)
        torch.manual_seed(1)
        batch = batch_of(trainer, segmentation(dims, highest)[0])
        step = trainer.train_step({name: value for name, value in batch.items()})
        after = torch.cat([parameter.detach().flatten() for parameter in trainer.network.parameters()])
        with torch.no_grad():
            checked = trainer.validation_step(batch)
        results.append((step["loss"], after, checked))
    (loss, after, checked), (loss_here, after_here, checked_here) = results
    torch.testing.assert_close(torch.tensor(loss_here), torch.tensor(loss))
    torch.testing.assert_close(after_here, after)
    for name, value in checked.items():
        torch.testing.assert_close(torch.as_tensor(checked_here[name]), torch.as_tensor(value))


def test_loss_by_hand():
    """Two touching cells by their ids: weights and target with a gap, in the size of each output."""
    trainer = trainer_of()
    labels, ids = segmentation()
    batch = batch_of(trainer, torch.cat([labels, ids], dim=1))
    weights = weight_map(ids[:, 0], preset="unet2019", bwf=10)
    target = (separate_touching(ids[:, 0]) > 0)[:, None].short()
    assert (target < labels).sum() == 2 * 13 and weights.max() > 10
    outputs = trainer.network(batch["data"])
    stock = nnUNetTrainer._build_loss(trainer)
    expected = 0
    for factor, output in zip(stock.weight_factors, outputs, strict=True):
        (of_target,), (of_weights,) = (
            resize_nearest(target, [output]),
            resize_nearest(weights[:, None], [output]),
        )
        dice = stock.loss.dc(output, of_target)
        expected += factor * (dice + weighted_cross_entropy(output, of_target.long(), of_weights))
    assert trainer.train_step(batch)["loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_step_needs_its_weights():
    trainer = trainer_of()
    batch = batch_of(trainer, segmentation()[0])
    trainer.train_step(batch)
    with pytest.raises(RuntimeError, match="the loss has no weights for this batch"):
        nnUNetTrainer.train_step(trainer, batch)


def test_training_lowers_the_loss():
    trainer = trainer_of()
    trainer.num_epochs = 1
    labels, ids = segmentation()
    batch = batch_of(trainer, torch.cat([labels, ids], dim=1))
    batch["data"] = labels.float()
    losses = [trainer.train_step(batch)["loss"] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_without_deep_supervision():
    class Flat(nnunet.nnUNetTrainerWeightMap):
        def __init__(self, plans, configuration, fold, dataset_json, device):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.enable_deep_supervision = False

    trainer = trainer_of(kind=Flat)
    labels, ids = segmentation()
    batch = {"data": torch.randn(2, 1, 32, 32), "target": torch.cat([labels, ids], dim=1)}
    output = trainer.network(batch["data"])
    target, weights = trainer.weighing(batch["target"])
    expected = weighted_cross_entropy(output, target.long(), weights) + trainer.loss.stock.dc(output, target)
    assert trainer.train_step(batch)["loss"] == pytest.approx(expected.item(), rel=1e-6)
    with torch.no_grad():
        assert trainer.validation_step(batch)["tp_hard"].shape == (1,)


def test_autocast():
    """Whatever the outputs are, the loss is a float32."""
    trainer = trainer_of()
    labels, ids = segmentation()
    batch = trainer._weighed(batch_of(trainer, torch.cat([labels, ids], dim=1)))
    weights = trainer.loss.weights
    with torch.autocast("cpu", torch.bfloat16):
        outputs = trainer.network(batch["data"])
        loss = trainer.loss(outputs, batch["target"])
    assert outputs[0].dtype == torch.bfloat16 and loss.dtype == torch.float32
    trainer.loss.weights = weights
    rounded = trainer.loss([output.float() for output in outputs], batch["target"])
    assert loss.item() == pytest.approx(rounded.item(), rel=1e-2)


def test_compiled(monkeypatch):
    """What nnU-Net compiles, network and Dice term, is compiled."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: original(module, backend="eager"))
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    trainer = trainer_of()
    assert type(trainer.loss.stock.dc) is type(trainer.network) is torch._dynamo.OptimizedModule
    labels, ids = segmentation()
    batch = batch_of(trainer, torch.cat([labels, ids], dim=1))
    assert trainer.train_step(batch)["loss"] < 12


def test_distributed(tmp_path):
    """A group of one process: Dice gathered, the last output kept, as in nnU-Net."""
    trainer = trainer_of(batch_dice=True)
    labels, ids = segmentation()
    batch = batch_of(trainer, torch.cat([labels, ids], dim=1))
    alone = trainer.train_step(batch)["loss"]
    trainer = trainer_of(batch_dice=True)  # in a group nnU-Net knows GPUs alone
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/meeting", world_size=1, rank=0)
    try:
        trainer.is_ddp = True
        trainer.loss = trainer._build_loss()
        assert trainer.loss.stock.dc.ddp and min(trainer.loss.scales) == pytest.approx(1e-6, rel=0.5)
        trainer.is_ddp = False
        assert trainer.train_step(batch)["loss"] == pytest.approx(alone, rel=1e-4)
    finally:
        torch.distributed.destroy_process_group()


# ------------------------------------------------------------------------------------- target and weights


@pytest.mark.parametrize("dims", [2, 3])
def test_instances_of_labels(dims):
    """Without ids: the components of each label, those of one label that meet at a corner in one."""
    labels = segmentation(dims)[0]
    labels[..., 9, 10] = 1  # a corner of the second block
    labels[..., 10:14, 12:15] = 2
    target, weights = nnunet.Weighing(SETTINGS, dims, [1, 2])(labels)
    assert target.dtype == torch.int16 and torch.equal(target, labels)
    ids = torch.zeros_like(labels)
    ids[..., 2:10, 2:11], ids[0, ..., 10:14, 4:8], ids[..., 10:14, 12:15] = 1, 2, 3
    ids = ids.masked_fill(labels == 0, 0)
    expected = weight_map(ids[:, 0], classes=labels[:, 0], settings=SETTINGS, spatial_dims=dims)
    torch.testing.assert_close(weights[:, 0], expected)


def test_classes_and_ignored():
    """Ids outside of the classes and in what is ignored are no instances; classes may touch."""
    labels, ids = segmentation()
    labels[..., 6:10] = torch.where(labels[..., 6:10] > 0, 2, 0)
    labels[..., 10:, :] = 3
    ids[..., :2, :] = 9
    target, weights = nnunet.Weighing(SETTINGS, 2, [1, 2], ignore_label=3)(torch.cat([labels, ids], 1))
    assert torch.equal(target, labels)  # nothing of one class touches
    inside = ids.masked_fill((labels == 0) | (labels == 3), 0)
    expected = weight_map(inside[:, 0], classes=labels[:, 0], ignore=labels[:, 0] == 3, settings=SETTINGS)
    torch.testing.assert_close(weights[:, 0], expected)
    assert (weights[labels == 3] == 0).all()


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
def test_regions(ignore, with_ids):
    """Each has target and weights of its own; nnU-Net's transforms keep the ids."""
    trainer = trainer_of(labels=REGIONS | ({"ignore": 3} if ignore else {}), order=[1, 2])
    labels, ids = segmentation(highest=3 if ignore else 2)
    given = torch.cat([labels, ids], dim=1) if with_ids else labels
    for of in (trainer.get_training_transforms, trainer.get_validation_transforms):
        moves = ((32, 32), (0, 0)) if of == trainer.get_training_transforms else ()
        scales = trainer._get_deep_supervision_scales()
        more = (scales, (), False) if moves else (scales,)
        pipeline = of(*moves, *more, regions=[(1, 2), (2,)], ignore_label=3 if ignore else None)
        sample = pipeline(image=torch.zeros(1, 32, 32), segmentation=given[0].clone())
        assert len(sample["segmentation"][0]) == 2 + ignore + with_ids
    batch = batch_of(trainer, given)
    target, weights = trainer.weighing(batch["target"][0])
    assert target.dtype == torch.bool and target.shape[1] == 2 + ignore and weights.shape[1] == 2
    ignored = labels[:, 0] == 3 if ignore else torch.zeros_like(labels[:, 0], dtype=torch.bool)
    for region, members in enumerate([(1, 2), (2,)]):
        inside = sum(labels[:, 0] == member for member in members) > 0
        instances = binary_to_instances(inside, connectivity=2)
        if with_ids:
            instances = ids[:, 0].masked_fill(~inside, 0)
        expected = weight_map(instances, ignore=ignored, settings=trainer.weighing.settings)
        torch.testing.assert_close(weights[:, region], expected)
        cut = separate_touching(instances) > 0
        untouched = inside & (instances == 0)
        assert torch.equal(target[:, region], cut | untouched)


def test_another_number_of_channels():
    with pytest.raises(
        ValueError, match="must have the channels that nnU-Net gives it, 1, and perhaps one of"
    ):
        nnunet.Weighing(SETTINGS, 2, [1])(torch.zeros(1, 3, 8, 8, dtype=torch.int16))


# ---------------------------------------------------------------------------------------------- settings


def test_settings_by_name_and_variable(monkeypatch):
    kinds = {
        nnunet.nnUNetTrainerWeightMap: SETTINGS,
        nnunet.nnUNetTrainerWeightMap_unet2019: WeightSettings.preset("unet2019"),
        nnunet.nnUNetTrainerWeightMap_unet2015: WeightSettings.preset("unet2015"),
        nnunet.nnUNetTrainerWeightMap_deepflash2_offline: WeightSettings.preset("deepflash2_offline"),
    }
    for kind, expected in kinds.items():
        assert settings_of(kind.preset, kind.changes, [2.0, 2.0]) == expected
    monkeypatch.setenv(VARIABLE, "bws=4 gaps=false")
    changed = SETTINGS.replace(bws=4, gaps=False, spacing=(3.0, 1.0, 1.5))
    assert settings_of("unet2019", {"bwf": 10.0}, [0.6, 0.2, 0.3]) == changed
    monkeypatch.setenv(VARIABLE, "preset=deepflash2 ks=null spacing=[2,2]")
    expected = WeightSettings.preset("deepflash2", ks=None, spacing=(2, 2))
    assert settings_of("unet2019", {"bwf": 10.0}, [1, 3]) == expected


def test_wrong_settings(monkeypatch):
    for text in ("bwf", "sigma=3", "bwf = 3"):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(ValueError, match=f"{VARIABLE} must be settings as in"):
            settings_of("unet2019", {}, [1, 1])
    monkeypatch.setenv(VARIABLE, "bws=-1")
    with pytest.raises(ValueError, match=rf"bws must be .*{VARIABLE}='bws=-1'"):
        settings_of("unet2019", {}, [1, 1])
    monkeypatch.setenv(VARIABLE, "preset=deepflash2")
    with pytest.raises(ValueError, match="euclidean"):
        trainer_of(3)


def test_spacing_of_the_plans():
    trainer = trainer_of(3, spacing=[3.0, 0.75, 0.75])
    assert trainer.weighing.settings.spacing == (4.0, 1.0, 1.0)
    labels, ids = segmentation(3)
    weights = trainer.weighing(torch.cat([labels, ids], dim=1))[1]
    expected = weight_map(ids[:, 0], preset="unet2019", bwf=10, spacing=(4, 1, 1), spatial_dims=3)
    torch.testing.assert_close(weights[:, 0], expected)


# -------------------------------------------------------------------------------------------- how it is found


@pytest.mark.parametrize("name", [name for name in nnunet.__all__ if name.startswith("nnUNetTrainer")])
def test_nnunet_finds_the_trainers(name, monkeypatch):
    command = [sys.executable, "-m", "fastlogconv.integrations.nnunet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    monkeypatch.setenv("nnUNet_extTrainer", line)
    assert recursive_find_trainer_class_by_name(name) is getattr(nnunet, name)
