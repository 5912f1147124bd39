"""What nnU-Net's planning would write, made by hand for tiny networks."""

import json

ARCHITECTURE = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
CLASSES = {"background": 0, "nucleus": 1}


def plans(dims, spacing=None, batch_dice=False):
    """Of a U-Net of three stages, patches 32 x 32 or 8 x 16 x 16."""
    kwargs = dict(
        n_stages=3, features_per_stage=[4, 8, 8], kernel_sizes=[[3] * dims] * 3,
        strides=[[1] * dims, [2] * dims, [2] * dims],
        n_conv_per_stage=[1] * 3, n_conv_per_stage_decoder=[1] * 2, conv_bias=True,
        conv_op=f"torch.nn.modules.conv.Conv{dims}d",
        norm_op=f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        norm_op_kwargs={"eps": 1e-5, "affine": True}, dropout_op=None, dropout_op_kwargs=None,
        nonlin="torch.nn.LeakyReLU", nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    configuration = dict(
        data_identifier="tiny", preprocessor_name="DefaultPreprocessor", batch_size=2, batch_dice=batch_dice,
        patch_size=[32, 32] if dims == 2 else [8, 16, 16], spacing=spacing or [1.0] * dims,
        normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[False],
        architecture=dict(
            network_class_name=ARCHITECTURE, arch_kwargs=kwargs,
            _kw_requires_import=["conv_op", "norm_op", "dropout_op", "nonlin"],
        ),
    )  # fmt: skip
    return dict(
        dataset_name="Dataset999_Cells", plans_name="nnUNetPlans", image_reader_writer="SimpleITKIO",
        transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2], label_manager="LabelManager",
        configurations={"tiny": configuration}, continue_training=False,
    )  # fmt: skip


def dataset(labels=None, regions_class_order=None):
    description = {"channel_names": {"0": "light"}, "labels": labels or CLASSES, "file_ending": ".nii.gz"}
    if regions_class_order is not None:
        description["regions_class_order"] = regions_class_order
    return json.loads(json.dumps(description))
