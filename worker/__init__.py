"""The worker: pulls a candidate, trains it on a device or several, posts metrics and fitness back."""
