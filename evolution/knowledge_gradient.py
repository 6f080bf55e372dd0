"""What a training is worth: by how much it is expected to raise the best prediction (Frazier, Powell and Dayanik, 2009).

Expected improvement asks whether a candidate will be the best row. But trainings are noisy, and what is recommended in the end
is the highest prediction, not the best row. The knowledge gradient asks how much that prediction rises when the candidate's
result is known, wherever it rises: a candidate that tells two promising places apart is worth something, even between them.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from evolution.cube import Matrix, Vector
from evolution.gaussian_process import Model

OUTCOMES = ndtri((np.arange(16) + 0.5) / 16)  # of a training, in standard deviations, equally probable


def knowledge_gradient(model: Model, points: Matrix, references: Matrix) -> Vector:
    """The expected rise of the highest mean among references (m, d) by one noisy value at each of the points (n, d)."""
    variances, means, covariances = model.joint(points, references)
    # The means move together with the value by so much for each standard deviation of it.
    moves = covariances / np.sqrt(variances + model.kernel.noise)[:, None]
    highest = (means + moves[:, None] * OUTCOMES[:, None]).max(2)
    return np.asarray(highest.mean(1) - means.max())
