"""Linear algebra on one thread: the matrices here are small, and threads that wait for each other cost more than they bring."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
