"""Lets every test import the helpers of this folder: `graphs` and `small`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
