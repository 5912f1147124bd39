"""`python -m fastlogconv.integrations.nnunet`: prints the folder for nnUNet_extTrainer."""

from __future__ import annotations

from . import trainers

if __name__ == "__main__":
    print(trainers.__path__[0])
