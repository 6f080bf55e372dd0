"""The contract between coordinator and workers, the one HTTP client, and the command line."""

__version__ = "0.1.0"
