"""Sounds: a float input by rank and name; the mel bands where that many are fixed."""

from __future__ import annotations

from typing import Any

from edgec.binding.reader import Reader, describe, fixed
from edgec.inputs import Input
from edgec.recipe import AUTO
from edgec.runtime.read_audio import steps

WORDS = ("audio", "mel", "wav", "speech", "spectrogram", "fbank", "sound", "feature")
RANKS = {"waveform": [2, 3], "frames": [3, 4], "mel": [3, 4]}


def bind(reader: Reader) -> dict[str, Any]:
    """The bound reader's table."""
    form = reader.options.get("form", "waveform")
    need = reader.choose("input", reader.fits(RANKS[form], "f"), WORDS)
    layout = reader.options.get("layout", AUTO)
    layout = _layout(reader, need, form) if layout == AUTO else layout
    feed = reader.feed(need, layout)
    found: dict[str, Any] = {
        "inputs": {"audio": feed},
        "form": form,
        **reader.defaults(sample_rate=16000, channels=1, normalise="none"),
    }
    if "c" in layout:
        reader.agree("channels", need, found["channels"], layout.index("c"))
    if form == "frames":
        length = reader.sized("win_length", need, layout.index("w"))
        found |= {"win_length": length} | reader.defaults(hop_length=length)
    if form == "mel":
        found |= {"n_mels": reader.sized("n_mels", need, layout.index("m"))}
        found |= _spectrogram(reader, found["sample_rate"])
    key, most = "max_seconds", reader.options.get("max_seconds")
    if most is not None:
        key = f"max_seconds = {most:g}: {'samples' if form == 'waveform' else 'frames'}"
        most = steps(found, round(most * found["sample_rate"]))
        if most < 1:
            raise reader.error(f"{key} = {most}", "set max_seconds higher")
    return {**found, "length": [*reader.length(key, most, need, layout.index("t"), None)]}


def _spectrogram(reader: Reader, rate: int) -> dict[str, Any]:
    """Librosa's defaults, but for the window: 25 ms every 10 ms at 16 kHz."""
    n_fft = reader.options.get("n_fft", 400)
    return reader.defaults(
        n_fft=n_fft,
        win_length=n_fft,
        hop_length=160,
        fmin=0.0,
        fmax=rate / 2,
        mel_scale="slaney",
        mel_norm="slaney",
        power=2.0,
        edges="zero",
        log="ln",
        offset=0.0,
        floor=1e-10,
        reference="one",
        span=0.0,
        mean=0.0,
        std=1.0,
    )


def _layout(reader: Reader, need: Input, form: str) -> str:
    """By rank; mel bands lie before the time, unless that many are fixed behind it only."""
    rank = len(need.shape or ())
    if form == "waveform":
        return {1: "t", 2: "nt", 3: "nct"}.get(rank, "")
    if form == "frames":
        return {3: "ntw", 4: "nctw"}.get(rank, "")
    if rank not in (2, 3, 4):
        return ""
    before, wanted = ("", "n", "nc")[rank - 2], reader.options.get("n_mels")
    sizes = [fixed(need, rank - 2), fixed(need, rank - 1)]
    here = [size == wanted if wanted else size is not None for size in sizes]
    if here[0] != here[1]:
        return before + ("mt" if here[0] else "tm")
    if wanted and not here[0] and None in sizes:
        return before + "mt"
    raise reader.error(
        f"input {describe(need)}: which dimension is the mel bands?",
        f'set n_mels, or layout = "{before}mt" or "{before}tm"',
    )
