"""The worker: pulls a candidate, trains it on one device, posts metrics and fitness back."""
