"""One thread for every test: tensors here are tiny, and threads that wait for each other cost more than they add."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
