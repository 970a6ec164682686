"""A plain numpy backend: an example of a target and a backend that edgec knows nothing about."""

from pathlib import Path

BOARD = Path(__file__).with_name("numpy-board")
