"""WAV files as samples. The standard library's `wave` knows neither float samples nor, before
Python 3.12, the extensible header.

Format: Microsoft, Multiple Channel Audio Data and WAVE Files; RFC 2361. PCM of 8 (unsigned), 16,
24 and 32 bits, and IEEE float of 32 and 64 bits; full scale is 1.0.
"""

import struct
from typing import Any, NoReturn, Tuple

import numpy as np

from edgec.errors import InputError

MOST_BYTES = 256 << 20
MOST_CHANNELS = 64
MOST_RATE = 768000
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
UNTIL_THE_END = 0xFFFFFFFF  # a size that a program writes to a pipe, where it cannot go back
_GUID = bytes.fromhex("000000001000800000aa00389b71")  # behind the two bytes of the format
_CONVERT = "Convert it, for instance: ffmpeg -i FILE -c:a pcm_s16le FILE.wav"
_BROKEN = "The file is truncated or damaged: write it again."


def decode(data: bytes, label: str) -> Tuple[Any, int]:
    """A RIFF file's samples, float64 [samples, channels], and its rate in Hz.

    Raises InputError naming `label`: no RIFF WAVE file, truncated, another encoding, no samples.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        _refuse(label, "no RIFF WAVE file", _CONVERT)
    header, body, at = b"", None, 12
    while body is None and at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        if name == b"data" and size == UNTIL_THE_END:
            size = len(data) - at
        if at + size > len(data):
            what = "chunk {!r} says {} bytes, {} are left".format(
                name.decode("ascii", "replace"), size, len(data) - at
            )
            _refuse(label, what, _BROKEN)
        if name == b"fmt ":
            header = data[at : at + size]
        elif name == b"data":
            body = data[at : at + size]
        at += size + size % 2
    if len(header) < 16 or body is None:
        _refuse(label, "the format or the samples are missing", _BROKEN)
    form, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", header)
    if form == EXTENSIBLE and header[26:40] == _GUID:
        (form,) = struct.unpack_from("<H", header, 24)
    if not (1 <= channels <= MOST_CHANNELS and 1 <= rate <= MOST_RATE):
        _refuse(label, "{} channels at {} Hz".format(channels, rate), _CONVERT)
    if (form, bits) not in ((PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)):
        what = "encoding {} with {} bits, only PCM and float are read".format(form, bits)
        _refuse(label, what, _CONVERT)
    if block != channels * bits // 8 or len(body) % block:
        _refuse(label, "{} bytes of samples are no whole number".format(len(body)), _BROKEN)
    if not body:
        _refuse(label, "no samples", "Leave it out.")
    return _scaled(body, form, bits).reshape(-1, channels), rate


def _scaled(body: bytes, form: int, bits: int) -> Any:
    """Float64 samples of all channels; integers are divided by 2 ** (bits - 1)."""
    if form == FLOAT:
        return np.frombuffer(body, "<f{}".format(bits // 8)).astype(np.float64)
    if bits == 8:
        return (np.frombuffer(body, np.uint8).astype(np.float64) - 128) / 128
    if bits == 24:
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4") / float(1 << 31)
    return np.frombuffer(body, "<i{}".format(bits // 8)) / float(1 << (bits - 1))


def _refuse(label: str, what: str, hint: str) -> NoReturn:
    raise InputError("{}: {}".format(label, what), hint=hint)
