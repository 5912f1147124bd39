"""The folder where nnU-Net finds the trainers: it imports every module in it, so there is one alone."""
