"""Sound as arrays: WAV, mixed down, resampled, cut or padded; as waveform, frames or mels."""

from typing import Any, Dict, Tuple

import numpy as np

from edgec.errors import InputError
from edgec.runtime import mel, wav
from edgec.runtime.reading import (
    FLOATS,
    Asset,
    Spec,
    arrange,
    choice,
    content,
    integer,
    number,
    reader_table,
    several,
)
from edgec.runtime.resample import resample

SUFFIXES = (".wav",)
LAYOUTS = ["nt", "nct", "t", "ntw", "nctw", "nmt", "ntm", "ncmt", "nctm", "mt", "tm"]
LOUDEST = 1e6
MOST = 1 << 27  # samples, or numbers in frames: two hours at 16 kHz
AXES = {"waveform": "t", "frames": "tw", "mel": "mt"}
OPTIONS = {
    "form": choice(*AXES),
    "sample_rate": integer(1, wav.MOST_RATE),
    "channels": integer(1, wav.MOST_CHANNELS),
    "normalise": choice("none", "peak", "standard"),
    "length": several({"type": ["integer", "null"], "minimum": 1, "maximum": MOST}, 2, 2),
}
FRAMES = {"win_length": integer(1, 1 << 20), "hop_length": integer(1, 1 << 20)}
MEL = {
    "n_fft": integer(2, 1 << 15),
    "n_mels": integer(1, 512),
    "fmin": number(minimum=0),
    "fmax": number(exclusiveMinimum=0),
    "mel_scale": choice("slaney", "htk"),
    "mel_norm": choice("slaney", "none"),
    "power": number(exclusiveMinimum=0, maximum=8),
    "edges": choice("zero", "reflect", "none"),
    "log": choice("none", "ln", "log10", "db"),
    "offset": number(minimum=0),
    "floor": number(exclusiveMinimum=0),
    "reference": choice("one", "max"),
    "span": number(minimum=0),
    "mean": number(),
    "std": number(exclusiveMinimum=0),
}
NEEDS = {"waveform": (), "frames": tuple(FRAMES), "mel": (*FRAMES, *MEL)}
SCHEMA = reader_table(
    "audio", {**OPTIONS, **FRAMES, **MEL}, ["audio"], LAYOUTS, FLOATS, [*FRAMES, *MEL]
)


class AudioReader:
    """Reads a sound: a path, a WAV file's bytes, or (samples, rate in Hz) with float [samples]
    or [samples, channels].
    """

    takes = "a sound"
    opens_files = True

    def __init__(self, spec: Spec, asset: Asset) -> None:
        """Raises InputError where the numbers contradict each other."""
        self._spec, self._form = spec, spec["form"]
        self._axes = ("c" if spec["channels"] > 1 else "") + AXES[self._form]
        problem = _contradiction(spec, self._axes)
        if problem:
            raise InputError(problem, hint="Correct the recipe.")
        self._bank = None
        if self._form == "mel":
            limits = (spec["fmin"], spec["fmax"])
            shape = (spec["sample_rate"], spec["n_fft"], spec["n_mels"])
            self._bank = mel.filters(*shape, limits, spec["mel_scale"], spec["mel_norm"])
            if not self._bank.any(axis=1).all():
                message = "some of {} mel bands are empty at n_fft = {}".format(*shape[:0:-1])
                raise InputError(message, hint="Set n_mels lower, or n_fft higher.")

    def read(self, item: Any, label: str) -> Dict[str, Any]:
        """One sample. Raises InputError naming `label`: not readable, no samples, too short."""
        spec = self._spec
        samples, rate = _open(item, label)
        if len(samples) * spec["sample_rate"] > MOST * rate:
            message = "{}: {} samples at {} Hz are too long".format(label, len(samples), rate)
            raise InputError(message, hint="Cut it, or correct its rate.")
        columns = [
            resample(column, rate, spec["sample_rate"])
            for column in _mixed(samples, spec["channels"], label)
        ]
        low, high = (None if n is None else span(spec, n) for n in spec["length"])
        array = np.stack(columns)[:, :high]
        array = _normalised(array, spec["normalise"])
        if array.shape[1] < (low or 0):
            array = np.pad(array, ((0, 0), (0, (low or 0) - array.shape[1])), mode="constant")
        made = array if "c" in self._axes else self._formed(array[0], label)
        feed = spec["inputs"]["audio"]
        return {feed["name"]: arrange(made.astype(feed["dtype"]), self._axes, feed["layout"])}

    def _formed(self, samples: Any, label: str) -> Any:
        spec, most = self._spec, self._spec["length"][1]
        if self._form == "waveform":
            return samples
        if self._form == "frames":
            samples = _at_least(samples, spec["win_length"])
            found = mel.frames(samples, spec["win_length"], spec["hop_length"])[:most]
            if found.size > MOST:
                message = "{}: {} frames of {} samples are too many".format(label, *found.shape)
                raise InputError(message, hint="Cut it, or set hop_length higher.")
            return found
        if spec["edges"] == "none":
            samples = _at_least(samples, spec["n_fft"])
        if spec["edges"] == "reflect" and len(samples) <= spec["n_fft"] // 2:
            message = "{}: {} samples are too few to reflect {}".format(
                label, len(samples), spec["n_fft"] // 2
            )
            raise InputError(message, hint='Leave it out, or set edges = "zero".')
        n_fft, hop, win = spec["n_fft"], spec["hop_length"], spec["win_length"]
        bands = mel.spectrogram(samples, n_fft, hop, win, spec["edges"], spec["power"], self._bank)
        keys = ("log", "offset", "floor", "reference", "span")
        bands = mel.compress(bands[:, :most], *(spec[key] for key in keys))
        return (bands - spec["mean"]) / spec["std"]


def span(spec: Spec, length: int) -> int:
    """How many samples make `length` steps of the time axis."""
    if spec["form"] == "waveform":
        return length
    if spec["form"] == "mel" and spec["edges"] != "none":
        return length * int(spec["hop_length"])
    window = spec["win_length" if spec["form"] == "frames" else "n_fft"]
    return (length - 1) * int(spec["hop_length"]) + int(window)


def steps(spec: Spec, samples: int) -> int:
    """How many whole steps of the time axis lie in so many samples; the inverse of `span`."""
    if spec["form"] == "waveform":
        return samples
    if spec["form"] == "mel" and spec["edges"] != "none":
        return samples // int(spec["hop_length"])
    window = spec["win_length" if spec["form"] == "frames" else "n_fft"]
    return 1 + (samples - int(window)) // int(spec["hop_length"])


def _contradiction(spec: Spec, axes: str) -> str:
    missing = [key for key in NEEDS[spec["form"]] if key not in spec]
    if missing:
        return "form {} needs {}".format(spec["form"], ", ".join(missing))
    if spec["channels"] > 1 and spec["form"] != "waveform":
        return "form {} takes one channel, not {}".format(spec["form"], spec["channels"])
    layout = spec["inputs"]["audio"]["layout"]
    if set(axes) - set(layout) or set(layout) - set(axes) - set("nc"):
        return "layout {} does not fit form {} with {} channels".format(
            layout, spec["form"], spec["channels"]
        )
    low, high = spec["length"]
    if low is not None and high is not None and low > high:
        return "length ends before it begins"
    if spec["form"] == "mel":
        if not spec["fmin"] < spec["fmax"] <= spec["sample_rate"] / 2:
            return "fmin = {:g}, fmax = {:g} do not lie within 0 to {:g} Hz".format(
                spec["fmin"], spec["fmax"], spec["sample_rate"] / 2
            )
        if spec["win_length"] > spec["n_fft"]:
            return "win_length = {} is more than n_fft = {}".format(
                spec["win_length"], spec["n_fft"]
            )
    return ""


def _open(item: Any, label: str) -> Tuple[Any, int]:
    """Float64 [samples, channels] and the rate."""
    if isinstance(item, tuple) and len(item) == 2:
        array, rate = np.asarray(item[0]), item[1]
        good = array.dtype.kind == "f" and array.ndim in (1, 2) and array.size > 0
        if not good or not isinstance(rate, int) or not 1 <= rate <= wav.MOST_RATE:
            hint = "Give floats [samples] or [samples, channels], and the rate in Hz as an int."
            raise InputError(label + ": not (samples, rate)", hint=hint)
        samples = array.reshape(len(array), -1).astype(np.float64)
    else:
        samples, rate = wav.decode(content(item, label, wav.MOST_BYTES), label)
    if not np.abs(samples).max() <= LOUDEST:  # so written, it is true of NaN
        message = "{}: samples that are no numbers, or beyond {:g}".format(label, LOUDEST)
        raise InputError(message, hint="Leave it out, or scale it: 1.0 is full scale.")
    return samples, rate


def _mixed(samples: Any, channels: int, label: str) -> Any:
    """[channels, samples]: as they are, or their mean if one is wanted."""
    if channels == 1:
        return samples.mean(axis=1)[None]
    if samples.shape[1] != channels:
        message = "{}: {} channels, the recipe wants {}".format(label, samples.shape[1], channels)
        raise InputError(message, hint="Convert it, for instance: ffmpeg -i FILE -ac N FILE.wav")
    return samples.T


def _normalised(array: Any, how: str) -> Any:
    """peak: the largest magnitude becomes one; standard: (x - mean) / sqrt(variance + 1e-7) of
    each channel, as the wav2vec 2.0 feature extractor of transformers has it.
    """
    if how == "peak":
        return array / max(float(np.abs(array).max()), 1e-12)
    if how == "standard":
        variance = array.var(axis=1, keepdims=True)
        return (array - array.mean(axis=1, keepdims=True)) / np.sqrt(variance + 1e-7)
    return array


def _at_least(samples: Any, length: int) -> Any:
    short = max(0, length - len(samples))
    return np.pad(samples, (0, short), mode="constant") if short else samples
