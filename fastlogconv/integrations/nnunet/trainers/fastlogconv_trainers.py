"""What nnU-Net imports when it looks for a trainer by its name."""

from fastlogconv.integrations.nnunet import *  # noqa: F403
