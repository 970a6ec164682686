"""What TensorRT is given besides Q/DQ: so far the calibration cache of TensorRT up to 10."""
