"""What can go wrong while training, as errors that a caller can tell apart. Each carries one line."""

from __future__ import annotations


class DataError(ValueError):
    """The data set, or the checkpoint to start from, cannot be used.

    The one-line text names the file, the line or key, what is wrong, and the remedy.
    """


class OtherTraining(DataError):
    """A checkpoint belongs to a training with another hyp set, scenario, seed or data."""


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite. The one-line text names the epoch and the iteration."""
