"""Sample rates changed by a windowed sinc.

The definition is `torchaudio.functional.resample` with its defaults (sinc_interp_hann,
lowpass_filter_width 6, rolloff 0.99), after J. O. Smith, "Digital Audio Resampling Home Page",
https://ccrma.stanford.edu/~jos/resample/. Computed in float64, in numpy's own loops, so that the
same file gives the same bytes whatever BLAS there is.
"""

import math
from typing import Any

import numpy as np

ZEROS = 6  # of the sinc, on each side
ROLLOFF = 0.99  # of the lower Nyquist frequency, where the filter ends
_BLOCK = 1 << 22  # products at a time


def resample(samples: Any, source: int, target: int) -> Any:
    """Float64 [samples] at `source` Hz -> [ceil(samples * target / source)] at `target` Hz.

    y[n] = sum_k x[k] c sinc(t) cos^2(pi t / 12), t = 2 f (k / source - n / target), |t| <= 6, with
    f = 0.99 min(source, target) / 2 and c = 2 f / source; zeros lie around x.
    """
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    if source == target:
        return np.array(samples, np.float64)
    cutoff = min(source, target) * ROLLOFF
    width = math.ceil(ZEROS * source / cutoff)
    # output n lies behind input n * source // target; the filter repeats after `target` outputs
    phase = np.arange(target)
    first = phase * source // target
    taps = np.arange(-width, width + 2)
    t = ((first[:, None] + taps) / source - phase[:, None] / target) * cutoff
    t = np.clip(t, -ZEROS, ZEROS)
    kernels = np.sinc(t) * np.cos(t * math.pi / ZEROS / 2) ** 2 * (cutoff / source)
    padded = np.pad(np.asarray(samples, np.float64), (width, width + 2), mode="constant")
    made = np.empty(-(-len(samples) * target // source))
    block = max(1, _BLOCK // len(taps))
    for start in range(0, len(made), block):
        n = np.arange(start, min(start + block, len(made)))
        inside = n % target
        begin = n // target * source + first[inside]
        windows = padded[begin[:, None] + np.arange(len(taps))]
        made[n] = (windows * kernels[inside]).sum(axis=1)
    return made
