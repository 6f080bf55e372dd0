"""The YOLOv3/YOLOv5 family of detectors: networks, data, augmentation, loss, metrics and a trainer made for short trainings."""
