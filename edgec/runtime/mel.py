"""Mel spectrograms on numpy alone, as librosa and torchaudio define them.

Definitions: librosa 0.11 `feature.melspectrogram`, `filters.mel` and `power_to_db`
(https://librosa.org/doc/latest/), with its scale of M. Slaney's Auditory Toolbox (1998) and that
of the HTK Book (Young et al.). All in float64, without BLAS: the same file gives the same bytes.
"""

import math
from typing import Any, Tuple

import numpy as np

_BLOCK = 1024  # frames at a time


def filters(
    rate: int, n_fft: int, n_mels: int, limits: Tuple[float, float], scale: str, norm: str
) -> Any:
    """Triangles, float64 [n_mels, 1 + n_fft // 2], over `limits` in Hz.

    `scale`: slaney (linear below 1 kHz) or htk. `norm`: slaney (area one) or none (peak one).
    """
    low, high = (_to_mel(hertz, scale) for hertz in limits)
    corners = _to_hertz(np.linspace(low, high, n_mels + 2), scale)
    bins = np.fft.rfftfreq(n_fft, 1.0 / rate)
    rising = (bins - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins) / (corners[2:] - corners[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        triangles *= 2.0 / (corners[2:] - corners[:-2])[:, None]
    return triangles


def _to_mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595.0 * math.log10(1.0 + hertz / 700.0)
    if hertz < 1000.0:
        return hertz * 3.0 / 200.0
    return 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def _to_hertz(mels: Any, scale: str) -> Any:
    if scale == "htk":
        return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bent = 1000.0 * np.exp((np.maximum(mels, 15.0) - 15.0) * math.log(6.4) / 27.0)
    return np.where(mels < 15.0, mels * 200.0 / 3.0, bent)


def frames(samples: Any, length: int, hop: int) -> Any:
    """A read-only view [1 + (samples - length) // hop, length] of float64 samples."""
    count = 1 + (len(samples) - length) // hop
    step = samples.strides[0]
    shape, strides = (count, length), (hop * step, step)
    return np.lib.stride_tricks.as_strided(samples, shape, strides, writeable=False)


def spectrogram(
    samples: Any, n_fft: int, hop: int, win: int, edges: str, power: float, bank: Any
) -> Any:
    """`bank` [mels, bins] applied to |STFT| ** power: float64 [mels, frames].

    A periodic Hann window of `win` samples in the middle of `n_fft`. `edges`: zero or reflect puts
    n_fft // 2 such samples around (frame t is centred on t * hop), none does not. `samples` must be
    longer than n_fft // 2 for reflect, and not shorter than n_fft for none.
    """
    before = (n_fft - win) // 2
    hann = 0.5 - 0.5 * np.cos(2.0 * math.pi * np.arange(win) / win)
    window = np.pad(hann, (before, n_fft - win - before), mode="constant")
    if edges == "zero":
        samples = np.pad(samples, n_fft // 2, mode="constant")
    elif edges == "reflect":
        samples = np.pad(samples, n_fft // 2, mode="reflect")
    windows = frames(np.ascontiguousarray(samples, np.float64), n_fft, hop)
    spans = [(int(row[0]), int(row[-1]) + 1) for row in map(np.flatnonzero, bank)]
    made = np.empty((len(bank), len(windows)))
    for start in range(0, len(windows), _BLOCK):
        spectrum = np.fft.rfft(windows[start : start + _BLOCK] * window, axis=1)
        energy = spectrum.real**2 + spectrum.imag**2
        if power != 2.0:
            energy = energy ** (power / 2.0)
        for row, (low, high) in enumerate(spans):
            made[row, start : start + _BLOCK] = (energy[:, low:high] * bank[row, low:high]).sum(1)
    return made


def compress(mels: Any, log: str, offset: float, floor: float, reference: str, span: float) -> Any:
    """log(max(mels + offset, floor)), the largest taken off if `reference` is max, and nothing
    further than `span` below the largest (0: no such limit). `log`: none, ln, log10, db = 10 log10.
    """
    if log == "none":
        return mels
    raised = np.maximum(mels + offset, floor)
    made = np.log(raised) if log == "ln" else np.log10(raised) * (10.0 if log == "db" else 1.0)
    if reference == "max":
        made = made - made.max()
    return np.maximum(made, made.max() - span) if span else made
