"""How fastlogconv is built, here and for other systems. Not installed: for `setup.py` and `make wheels`."""
