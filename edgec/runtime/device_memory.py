"""GPU memory, for the session and for calibration that streams: all that pycuda is used for.

pycuda is imported when the first byte is asked for, so that everything else works without it. The
GPU's primary context is used, which TensorRT shares. Not verified on hardware.
"""

from typing import Any, List

import numpy as np

from edgec.errors import ToolchainError


class DeviceMemory:
    """Buffers on one GPU, and a stream. ToolchainError: no pycuda, or no GPU that it can use."""

    def __init__(self, device: int = 0) -> None:
        try:
            import pycuda.driver as driver
        except ImportError as error:
            message = "pycuda cannot be imported: {}".format(error)
            hint = "pip install pycuda on the device; it needs CUDA's headers, as JetPack has them."
            raise ToolchainError(message, hint=hint) from error
        self._driver = driver
        try:
            driver.init()
            self._context = driver.Device(device).retain_primary_context()
            self._context.push()
            self._stream = driver.Stream()
        except Exception as error:  # pycuda's errors share no base that could be named without it
            message = "CUDA cannot be used: {}".format(error)
            raise ToolchainError(message, hint="Check the driver and the device.") from error
        self._kept: List[Any] = []

    @property
    def stream(self) -> int:
        """The handle of the stream that all copies use."""
        return int(self._stream.handle)

    def allocate(self, size: int) -> int:
        """The address of `size` bytes, kept until `close`."""
        self._kept.append(self._driver.mem_alloc(max(size, 1)))
        return int(self._kept[-1])

    def upload(self, address: int, array: Any) -> None:
        """Copy an array to the GPU."""
        self._driver.memcpy_htod_async(address, np.ascontiguousarray(array), self._stream)

    def download(self, array: Any, address: int) -> None:
        """Copy from the GPU into an array."""
        self._driver.memcpy_dtoh_async(array, address, self._stream)

    def enter(self) -> None:
        """Make the context current in this thread."""
        self._context.push()

    def leave(self) -> None:
        """Give the thread its former context back."""
        self._context.pop()

    def wait(self) -> None:
        """Until all that was asked for is done."""
        self._stream.synchronize()

    def close(self) -> None:
        """Release everything."""
        for one in self._kept:
            one.free()
        self._kept = []
        self._context.pop()
        self._context.detach()
