"""Accuracy won back after quantization, from calibration data and without training."""
