"""nnU-Net by its own commands: planning, preprocessing, two epochs and prediction with weights, 2d and 3d."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fastlogconv.integrations.nnunet import trainers

BIN = Path(sys.executable).parent
TRAINER = """
from fastlogconv.integrations.nnunet import nnUNetTrainerWeightMap


class nnUNetTrainerShort(nnUNetTrainerWeightMap):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 3, 1
"""
SHAPE, SPACING = (40, 36, 10), (0.5, 0.5, 1.5)  # x, y, z


def cells(seed):
    """A volume of boxes that touch: its image, classes and ids."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(SHAPE, np.int16)
    for number, x in enumerate(range(4, 34, 6), start=1):
        ids[x : x + 6, 6 + number : 26, 2:8] = number
    image = (ids > 0) + 0.5 * rng.random(SHAPE) + 0.2 * (ids % 2)
    return image.astype(np.float32), (ids > 0).astype(np.uint8), ids


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """The environment for nnU-Net's commands, with a dataset that is planned and preprocessed."""
    root = tmp_path_factory.mktemp("nnunet")
    raw = root / "raw" / "Dataset999_Cells"
    for folder in ("imagesTr", "labelsTr", "instancesTr", "imagesTs"):
        (raw / folder).mkdir(parents=True)
    affine = np.diag([*SPACING, 1])
    for case in range(5):
        image, labels, ids = (nibabel.Nifti1Image(array, affine) for array in cells(case))
        nibabel.save(image, raw / "imagesTr" / f"cells{case}_0000.nii.gz")
        nibabel.save(labels, raw / "labelsTr" / f"cells{case}.nii.gz")
        nibabel.save(ids, raw / "instancesTr" / f"cells{case}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(cells(9)[0], affine), raw / "imagesTs" / "cells9_0000.nii.gz")
    described = {
        "channel_names": {"0": "light"}, "labels": {"background": 0, "nucleus": 1}, "numTraining": 5,
        "file_ending": ".nii.gz",
    }  # fmt: skip
    (raw / "dataset.json").write_text(json.dumps(described))
    (root / "trainers").mkdir()
    (root / "trainers" / "short_trainer.py").write_text(TRAINER)
    folders = {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}
    environment = os.environ | folders | {
        "nnUNet_extTrainer": os.pathsep.join([str(root / "trainers"), trainers.__path__[0]]),
        "nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg",
    }  # fmt: skip
    run(environment, "nnUNetv2_plan_and_preprocess", "-d", "999", "-c", "2d", "3d_fullres", "-np", "1", "1",
        "-npfp", "1", "--verify_dataset_integrity")  # fmt: skip
    return root, environment


def run(environment, command, *options):
    done = subprocess.run(
        [*command_line(command), *options], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def command_line(command):
    return [BIN / command] if command.startswith("nnUNet") else [sys.executable, "-m", command]


@pytest.mark.parametrize(("configuration", "with_ids"), [("2d", False), ("3d_fullres", True)])
def test_the_whole_way(configuration, with_ids, dataset):
    root, environment = dataset
    environment = environment | {"FASTLOGCONV_NNUNET": "bwf=7", "nnUNet_n_proc_DA": "0"}
    if with_ids:
        printed = run(environment, "fastlogconv.integrations.nnunet", "add-instances", "999", configuration)
        assert printed.endswith("instance ids added to 5 segmentations\n")
    run(
        environment,
        "nnUNetv2_train",
        "999",
        configuration,
        "0",
        "-tr",
        "nnUNetTrainerShort",
        "-device",
        "cpu",
    )
    trained = root / "results" / "Dataset999_Cells" / f"nnUNetTrainerShort__nnUNetPlans__{configuration}"
    (log,) = (trained / "fold_0").glob("training_log*.txt")
    text = log.read_text()
    spacing = ", spacing=(3.0, 1.0, 1.0)" if configuration == "3d_fullres" else ""
    assert f"weights of pixels: WeightSettings.preset('unet2019', bwf=7.0{spacing})" in text
    losses = [float(loss) for loss in re.findall(r"train_loss (\S+)", text)]
    assert len(losses) == 2 and np.isfinite(losses).all() and losses[1] < losses[0]
    summary = json.loads((trained / "fold_0" / "validation" / "summary.json").read_text())
    counted = summary["metric_per_case"][0]["metrics"]["1"]
    assert counted["TP"] + counted["FN"] == cells(0)[1].sum()
    assert counted["TP"] + counted["FP"] + counted["FN"] + counted["TN"] == np.prod(SHAPE)
    predicted = root / f"predicted_{configuration}"
    run(environment, "nnUNetv2_predict", "-i", str(root / "raw" / "Dataset999_Cells" / "imagesTs"),
        "-o", str(predicted), "-d", "999", "-c", configuration, "-f", "0", "-tr", "nnUNetTrainerShort",
        "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta")  # fmt: skip
    classes = np.asarray(nibabel.load(predicted / "cells9.nii.gz").dataobj)
    assert classes.shape == SHAPE and set(np.unique(classes)) <= {0, 1}


def test_ids_are_resampled_as_labels_are(dataset):
    """And a channel of their own; nothing else of the data changes."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    root, environment = dataset
    folder = root / "preprocessed" / "Dataset999_Cells" / "nnUNetPlans_2d"
    before = nnUNetDatasetBlosc2(str(folder)).load_case("cells1")
    before = [np.array(array[:]) for array in before[:2]]
    for _ in range(2):
        run(environment, "fastlogconv.integrations.nnunet", "add-instances", "Dataset999_Cells", "2d")
    data, segmentation, *_ = nnUNetDatasetBlosc2(str(folder)).load_case("cells1")
    assert np.array_equal(data[:], before[0]) and segmentation.shape == (2, *before[1].shape[1:])
    labels, ids = np.array(segmentation[:])
    assert np.array_equal(labels, before[1][0])
    assert np.array_equal(ids, cells(1)[2].transpose(2, 1, 0))
    assert len(list(folder.iterdir())) == 5 * 3


def test_ids_that_are_refused(dataset, tmp_path):
    _, environment = dataset
    command = command_line("fastlogconv.integrations.nnunet")
    refused = {"absent": "there are no instance ids in", "large": "has the instance id 40000"}
    for folder, message in refused.items():
        place = Path(environment["nnUNet_raw"]) / "Dataset999_Cells" / folder
        if folder == "large":
            place.mkdir()
            for case in range(5):
                ids = np.where(cells(case)[2] > 0, 40000, 0).astype(np.uint16)
                nibabel.save(nibabel.Nifti1Image(ids, np.diag([*SPACING, 1])), place / f"cells{case}.nii.gz")
        done = subprocess.run(
            [*command, "add-instances", "999", "2d", "--folder", folder], env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2 and message in done.stderr
