"""Calibrators of TensorRT up to 10: one that serves a cache, one that streams batches.

Classes are made when they are needed, because their base lies in the bindings. The cache is served
to the very version that its first line names; TensorRT then asks for no data. Where it asks all the
same, it took the cache for another's: the calibrator refuses, and `asked` remembers, because the
bindings turn an exception into a plain failure. Not verified on hardware.
"""

from typing import Any, Iterator, List, Mapping

import numpy as np

from edgec.errors import EmitError

REFUSED = "TensorRT asked for calibration data: it did not take the cache"
HINT = "The first line of the cache names another TensorRT: build for this device's stack."


def from_cache(trt: Any, cache: bytes) -> Any:
    """An `IInt8EntropyCalibrator2` that has nothing but a cache."""

    class Cached(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        """Serves the cache; `asked` tells whether TensorRT wanted data."""

        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.asked = False

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: List[str], *_: Any) -> None:
            self.asked = True
            raise EmitError(REFUSED, hint=HINT)

        def read_calibration_cache(self, *_: Any) -> bytes:
            return cache

        def write_calibration_cache(self, cache: Any) -> None:
            """Nothing is learnt here."""

    return Cached()


def from_batches(trt: Any, batches: Iterator[Mapping[str, Any]], memory: Any) -> Any:
    """An `IInt8EntropyCalibrator2` that hands arrays by input name to the GPU, a batch a call.

    `memory`: see `device_memory`; buffers are made once for each input and kept. `cache` holds what
    TensorRT made of it, for the next time.
    """

    class Streaming(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        """TensorRT's own calibration; all batches have the shapes of the first."""

        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.cache = b""
            self.batches = 0
            self._buffers: dict = {}  # type: ignore[type-arg]

        def get_batch_size(self) -> int:
            return 1  # the samples bring their batch dimension along

        def get_batch(self, names: List[str], *_: Any) -> Any:
            feeds = next(batches, None)
            if feeds is None:
                return None
            for name in names:
                array = np.ascontiguousarray(feeds[name])
                if name not in self._buffers:
                    self._buffers[name] = memory.allocate(array.nbytes)
                memory.upload(self._buffers[name], array)
            self.batches += 1
            return [int(self._buffers[name]) for name in names]

        def read_calibration_cache(self, *_: Any) -> None:
            return None

        def write_calibration_cache(self, cache: Any) -> None:
            self.cache = bytes(cache)

    return Streaming()
