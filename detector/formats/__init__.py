"""Readers of data set formats, one module each: ``read(path) -> Dataset``. ``detector.data`` tells them apart."""
