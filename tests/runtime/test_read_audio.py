"""Sounds: against torchaudio's, librosa's and Whisper's numbers; every encoding; broken files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import media
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import InputError
from edgec.runtime import mel, wav
from edgec.runtime.read_audio import AudioReader, span, steps
from edgec.runtime.resample import resample

TONE = media.tone()

# torchaudio 2.11.0: functional.resample(tone, source, target), float64
TORCHAUDIO = {
    (8000, 16000): (800, {0: 0.000139439, 1: 0.020765401, 7: 0.175852548, 799: 0.100084077}),
    (16000, 8000): (200, {0: 0.008366891, 1: 0.098999132, 7: 0.655019953, 199: 0.207121507}),
    (44100, 16000): (146, {0: 0.012968001, 1: 0.136360769, 73: -0.380770077, 145: 0.089308019}),
    (11025, 16000): (581, {0: 0.000139439, 1: 0.031466808, 290: -0.45895058, 580: 0.064345396}),
}

# librosa 0.11.0: feature.melspectrogram(tone, sr=8000, n_fft=128, hop_length=100, n_mels=4, …)
ZERO = [
    [0.1753959, 0.5106091, 0.4138022, 0.2403057, 0.0475419],
    [0.0002266, 1e-07, 1e-06, 8e-07, 0.0017162],
    [2.65e-05, 0.0, 0.0, 0.0, 0.0005165],
    [5.7e-06, 0.0, 0.0, 0.0, 0.000235],
]
REFLECT = [  # win_length=100, htk=True, norm=None, power=1, fmin=100, fmax=3000, pad_mode="reflect"
    [10.0557992, 6.6810911, 9.9458977, 10.7429184, 8.1931485],
    [2.214315, 0.0572145, 0.0681127, 0.0809694, 0.071918],
    [1.0649492, 0.0101267, 0.010246, 0.0083179, 0.0099622],
    [0.6698381, 0.0029633, 0.0029117, 0.0022456, 0.0029767],
]
NONE = [[0.5066322, 0.4612936, 0.3063215], [3e-07, 5e-07, 3e-07]]  # center=False, two bands of four
DECIBEL = [  # power_to_db(ZERO, ref=np.max, top_db=30)
    [-4.6406904, 0.0, -0.9129574, -3.2732458, -10.3101203],
    [-30.0, -30.0, -30.0, -30.0, -24.7351782],
    [-30.0, -30.0, -30.0, -30.0, -29.9503474],
    [-30.0, -30.0, -30.0, -30.0, -30.0],
]
# librosa 0.11.0: filters.mel(sr=8000, n_fft=16, n_mels=3, …)
SLANEY = [
    [0, 0.0014288, 0.0005349, 0, 0, 0, 0, 0, 0],
    [0, 0, 0.000851, 0.0008647, 0.0002341, 0, 0, 0, 0],
    [0, 0, 0, 0.0002198, 0.0005794, 0.0005893, 0.0003929, 0.0001964, 0],
]
HTK = [
    [0, 0.8934592, 0.1656918, 0, 0, 0, 0, 0, 0],
    [0, 0.1065408, 0.8343082, 0.6508237, 0.1987153, 0, 0, 0, 0],
    [0, 0, 0, 0.3491763, 0.8012847, 0.8425854, 0.5617236, 0.2808618, 0],
]
# transformers 5.23.0: WhisperFeatureExtractor(feature_size=80)(float32 tone): bands x frames
WHISPER_AT = ([0, 5, 20, 79], [0, 1, 2, 3, 4, 2999])
WHISPER = [
    [1.401964, 0.858612, 0.164494, -0.037468, -0.539339, -0.539339],
    [1.460661, 1.382839, 0.784057, 0.384165, -0.539339, -0.539339],
    [0.620538, 0.133058, 0.555649, 0.554117, -0.539339, -0.539339],
    [-0.200949, -0.539339, 0.008507, 0.006057, -0.539339, -0.539339],
]
MEL: dict[str, Any] = {
    "n_fft": 128,
    "win_length": 128,
    "hop_length": 100,
    "n_mels": 4,
    "fmin": 0.0,
    "fmax": 4000.0,
    "mel_scale": "slaney",
    "mel_norm": "slaney",
    "power": 2.0,
    "edges": "zero",
    "log": "none",
    "offset": 0.0,
    "floor": 1e-10,
    "reference": "one",
    "span": 0.0,
    "mean": 0.0,
    "std": 1.0,
}


def spec(form: str, layout: str, **changed: Any) -> dict[str, Any]:
    return {
        "kind": "audio",
        "column": "audio",
        "inputs": {"audio": {"name": "x", "dtype": "float32", "layout": layout}},
        "form": form,
        "sample_rate": 8000,
        "channels": 1,
        "normalise": "none",
        "length": [None, None],
        **({"win_length": 100, "hop_length": 60} if form == "frames" else {}),
        **(MEL if form == "mel" else {}),
        **changed,
    }


def read(item: Any, form: str = "waveform", layout: str = "nt", **changed: Any) -> Any:
    feeds = AudioReader(spec(form, layout, **changed), lambda _: b"").read(item, "it")
    assert list(feeds) == ["x"]
    assert feeds["x"].flags.c_contiguous
    return feeds["x"]


@pytest.mark.parametrize("rates", TORCHAUDIO)
def test_torchaudio(rates: tuple[int, int]) -> None:
    count, points = TORCHAUDIO[rates]
    found = resample(TONE, *rates)
    assert found.shape == (count,)
    for place, value in points.items():
        assert found[place] == pytest.approx(value, abs=1e-9)


def test_resampling_keeps_a_tone_and_drops_what_would_fold() -> None:
    t = np.arange(48000) / 48000
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 12000 * t)
    found = resample(low, 48000, 16000)[1000:-1000]
    np.testing.assert_allclose(found, low[::3][1000:-1000], atol=2e-3)
    assert np.abs(resample(high, 48000, 16000)[1000:-1000]).max() < 3e-3


@settings(max_examples=60, deadline=None)
@given(source=st.integers(1, wav.MOST_RATE), target=st.integers(1, wav.MOST_RATE))
def test_any_two_rates(source: int, target: int) -> None:
    count = max(1, min(50, 20000 * source // target))
    found = resample(np.ones(count), source, target)
    assert len(found) == -(-count * target // source)
    assert np.isfinite(found).all()


def spectrogram(**changed: Any) -> Any:
    keys = {**MEL, **changed}
    limits = (keys["fmin"], keys["fmax"])
    bank = mel.filters(8000, 128, 4, limits, keys["mel_scale"], keys["mel_norm"])
    return mel.spectrogram(TONE, 128, 100, keys["win_length"], keys["edges"], keys["power"], bank)


def test_librosa() -> None:
    limits = (0.0, 4000.0)
    np.testing.assert_allclose(
        mel.filters(8000, 16, 3, limits, "slaney", "slaney"), SLANEY, atol=6e-8
    )
    np.testing.assert_allclose(mel.filters(8000, 16, 3, limits, "htk", "none"), HTK, atol=6e-8)
    np.testing.assert_allclose(spectrogram(), ZERO, atol=6e-8)
    other: dict[str, Any] = {"win_length": 100, "mel_scale": "htk", "mel_norm": "none"}
    other |= {"power": 1.0, "fmin": 100.0, "fmax": 3000.0, "edges": "reflect"}
    np.testing.assert_allclose(spectrogram(**other), REFLECT, atol=6e-8)
    np.testing.assert_allclose(spectrogram(edges="none")[:2], NONE, atol=6e-8)
    decibel = mel.compress(spectrogram(), "db", 0.0, 1e-10, "max", 30.0)
    np.testing.assert_allclose(decibel, DECIBEL, atol=6e-8)


def test_the_whole_line_to_mels() -> None:
    found = read((TONE, 8000), "mel", "nmt")
    assert (found.shape, found.dtype) == ((1, 4, 5), np.float32)
    np.testing.assert_allclose(found[0], ZERO, atol=1e-7)
    decibel = read((TONE, 8000), "mel", "nmt", log="db", reference="max", span=30.0)
    np.testing.assert_allclose(decibel[0], DECIBEL, atol=1e-5)
    scaled = read((TONE, 8000), "mel", "nmt", mean=2.0, std=4.0)
    np.testing.assert_allclose(scaled[0], (np.array(ZERO) - 2) / 4, atol=1e-7)
    offset = read((TONE, 8000), "mel", "nmt", log="ln", offset=0.01)
    np.testing.assert_allclose(offset[0], np.log(np.array(ZERO) + 0.01), atol=1e-5)


def test_whisper() -> None:
    whisper = {"sample_rate": 16000, "n_fft": 400, "win_length": 400, "hop_length": 160}
    whisper |= {"n_mels": 80, "fmax": 8000.0, "edges": "reflect", "log": "log10", "span": 8.0}
    whisper |= {"mean": -4.0, "std": 4.0, "length": [3000, 3000]}
    found = read((TONE, 16000), "mel", "nmt", **whisper)
    assert found.shape == (1, 80, 3000)
    np.testing.assert_allclose(found[0][np.ix_(*WHISPER_AT)], WHISPER, atol=2e-6)


def test_blocks_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, resampled = spectrogram(), resample(TONE, 8000, 11025)
    monkeypatch.setattr("edgec.runtime.mel._BLOCK", 2)
    monkeypatch.setattr("edgec.runtime.resample._BLOCK", 100)
    np.testing.assert_array_equal(spectrogram(), whole)
    np.testing.assert_array_equal(resample(TONE, 8000, 11025), resampled)


# Length, layout, normalisation


@pytest.mark.parametrize(
    ("form", "layout", "shape"),
    [
        ("waveform", "nt", (1, 400)),
        ("waveform", "nct", (1, 1, 400)),
        ("waveform", "t", (400,)),
        ("frames", "ntw", (1, 6, 100)),
        ("frames", "nctw", (1, 1, 6, 100)),
        ("mel", "nmt", (1, 4, 5)),
        ("mel", "ntm", (1, 5, 4)),
        ("mel", "ncmt", (1, 1, 4, 5)),
        ("mel", "nctm", (1, 1, 5, 4)),
        ("mel", "mt", (4, 5)),
        ("mel", "tm", (5, 4)),
    ],
)
def test_layouts(form: str, layout: str, shape: tuple[int, ...]) -> None:
    found = read((TONE, 8000), form, layout)
    assert found.shape == shape
    plain = read((TONE, 8000), form, {"waveform": "nt", "frames": "ntw", "mel": "nmt"}[form])[0]
    np.testing.assert_array_equal(
        found.reshape(shape[-2:]).T if "tm" in layout else found.reshape(plain.shape), plain
    )


def test_frames_are_windows_of_the_waveform() -> None:
    found = read((TONE, 8000), "frames", "ntw")[0]
    for number in range(6):
        np.testing.assert_allclose(found[number], TONE[60 * number : 60 * number + 100], atol=1e-7)


@pytest.mark.parametrize(
    ("form", "layout", "changed", "low", "high"),
    [
        ("waveform", "nt", {}, 500, 500),
        ("waveform", "nt", {}, 300, 300),
        ("waveform", "nt", {}, 1, 300),
        ("waveform", "nt", {}, 500, None),
        ("frames", "ntw", {}, 9, 9),
        ("frames", "ntw", {}, 2, 2),
        ("mel", "ntm", {}, 9, 9),
        ("mel", "ntm", {}, 3, 3),
        ("mel", "ntm", {"edges": "reflect"}, 9, 9),
        ("mel", "ntm", {"edges": "none"}, 9, 9),
        ("mel", "ntm", {"edges": "none"}, 2, 2),
    ],
)
def test_lengths(form: str, layout: str, changed: Any, low: int, high: int | None) -> None:
    found = read((TONE, 8000), form, layout, length=[low, high], **changed)
    free = read((TONE, 8000), form, layout, **changed)
    wanted = max(free.shape[1], low) if high is None else min(max(free.shape[1], low), high)
    assert found.shape[1] == wanted
    if form != "mel":  # a spectrogram's last frames see where the sound was cut
        same = min(free.shape[1], wanted)
        np.testing.assert_allclose(found[0, :same], free[0, :same], atol=1e-7)
        assert not found[0, 500:].any()


@settings(max_examples=200, deadline=None)
@given(
    form=st.sampled_from(["waveform", "frames", "mel"]),
    edges=st.sampled_from(["zero", "reflect", "none"]),
    hop=st.integers(1, 50),
    window=st.integers(2, 99),
    length=st.integers(1, 500),
)
def test_span_and_steps_are_inverse(
    form: str, edges: str, hop: int, window: int, length: int
) -> None:
    given = {"form": form, "edges": edges, "hop_length": hop, "win_length": window}
    given["n_fft"] = window
    assert steps(given, span(given, length)) == length


def test_shorter_than_one_window() -> None:
    short = np.full(10, 0.5)
    found = read((short, 8000), "frames", "ntw")
    assert found.shape == (1, 1, 100)
    np.testing.assert_array_equal(found[0, 0], [0.5] * 10 + [0.0] * 90)
    assert read((short, 8000), "mel", "nmt", edges="none").shape == (1, 4, 1)
    assert read((short, 8000), "mel", "nmt").shape == (1, 4, 1)
    with pytest.raises(InputError, match="it: 10 samples are too few to reflect 64") as caught:
        read((short, 8000), "mel", "nmt", edges="reflect")
    assert 'edges = "zero"' in caught.value.hint


def test_more_frames_than_memory() -> None:
    long = (np.zeros(100_000), 8000)
    with pytest.raises(InputError, match="it: 80001 frames of 20000 samples are too many"):
        read(long, "frames", "ntw", win_length=20_000, hop_length=1)
    assert (
        read(long, "frames", "ntw", win_length=20_000, hop_length=1, length=[1, 3]).size == 60_000
    )


def test_normalised() -> None:
    loud = TONE * 0.3 + 0.1
    found = read((loud, 8000), normalise="standard", length=[500, 500])[0]
    wanted = (loud - loud.mean()) / np.sqrt(loud.var() + 1e-7)  # silence is added afterwards
    np.testing.assert_allclose(found, [*wanted, *np.zeros(100)], atol=1e-6)
    peak = read((loud, 8000), normalise="peak")[0]
    np.testing.assert_allclose(peak, loud / np.abs(loud).max(), atol=1e-6)
    for how in ("standard", "peak"):
        assert not read((np.zeros(50), 8000), normalise=how).any()


def test_channels() -> None:
    both = np.stack([TONE, -0.5 * TONE], axis=1)
    np.testing.assert_allclose(read((both, 8000))[0], 0.25 * TONE, atol=1e-7)
    found = read((both, 8000), layout="nct", channels=2)
    np.testing.assert_allclose(found[0], both.T, atol=1e-7)
    with pytest.raises(InputError, match="it: 1 channels, the recipe wants 2"):
        read((TONE, 8000), layout="nct", channels=2)


def test_mixed_before_resampled() -> None:
    both = np.stack([TONE, np.roll(TONE, 3)], axis=1)
    found = read((both, 11025))[0]
    np.testing.assert_allclose(found, resample(both.mean(axis=1), 11025, 8000), atol=1e-7)


@pytest.mark.parametrize(
    ("form", "layout", "changed", "words"),
    [
        ("mel", "nmt", {"fmax": 5000.0}, "fmin = 0, fmax = 5000 do not lie within 0 to 4000 Hz"),
        ("mel", "nmt", {"fmin": 4000.0}, "fmin = 4000, fmax = 4000"),
        ("mel", "nmt", {"win_length": 200}, "win_length = 200 is more than n_fft = 128"),
        ("mel", "nmt", {"n_mels": 100}, "some of 100 mel bands are empty at n_fft = 128"),
        ("mel", "nt", {}, "layout nt does not fit form mel"),
        ("waveform", "nmt", {}, "layout nmt does not fit form waveform"),
        ("waveform", "nt", {"channels": 2}, "layout nt does not fit form waveform with 2"),
        ("mel", "ncmt", {"channels": 2}, "form mel takes one channel, not 2"),
        ("waveform", "nt", {"length": [5, 4]}, "length ends before it begins"),
    ],
)
def test_specs_that_contradict_themselves(form: str, layout: str, changed: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        AudioReader(spec(form, layout, **changed), lambda _: b"")
    assert words in caught.value.message


def test_what_a_form_needs_is_named() -> None:
    page = spec("mel", "nmt")
    del page["n_mels"], page["floor"]
    with pytest.raises(InputError, match="form mel needs n_mels, floor"):
        AudioReader(page, lambda _: b"")


# WAV files

LEVELS = np.array([0, 1, -1, 100, -100, 127, -128])


def encoded(bits: int, form: int) -> tuple[bytes, Any]:
    if form == 3:
        values = LEVELS / 128
        return values.astype(f"<f{bits // 8}").tobytes(), values
    full = 1 << (bits - 1)
    values = LEVELS * (full // 128)
    if bits == 8:
        return (values + 128).astype(np.uint8).tobytes(), values / full
    wide = values.astype("<i4").tobytes()
    body = b"".join(wide[i : i + bits // 8] for i in range(0, len(wide), 4))
    return body, values / full


ENCODINGS = [(8, 1), (16, 1), (24, 1), (32, 1), (32, 3), (64, 3)]


@pytest.mark.parametrize(("bits", "form"), ENCODINGS)
def test_encodings(bits: int, form: int) -> None:
    body, values = encoded(bits, form)
    samples, rate = wav.decode(media.wav(body, bits, 22050, form=form), "it")
    assert rate == 22050
    np.testing.assert_array_equal(samples, values[:, None])


@pytest.mark.parametrize(("bits", "form"), ENCODINGS)
def test_extensible_headers(bits: int, form: int) -> None:
    body, values = encoded(bits, form)
    extra = struct.pack("<HHI", 22, bits, 4) + struct.pack("<H", form)
    extra += bytes.fromhex("000000001000800000aa00389b71")
    data = media.wav(body, bits, form=0xFFFE, extra=extra)
    np.testing.assert_array_equal(wav.decode(data, "it")[0], values[:, None])


def test_stereo_and_the_standard_library_agree(tmp_path: Path) -> None:
    import wave

    levels = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, (50, 2)).astype("<i2")
    path = tmp_path / "it.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 2, 44100, 50, "NONE", ""))
        file.writeframes(levels.tobytes())
    samples, rate = wav.decode(path.read_bytes(), "it")
    assert rate == 44100
    np.testing.assert_array_equal(samples, levels / 32768)
    found = read(path, sample_rate=44100)
    np.testing.assert_allclose(found[0], levels.mean(axis=1) / 32768, atol=1e-7)


def test_other_chunks_and_a_size_written_to_a_pipe() -> None:
    plain = media.wav16(TONE)
    samples = wav.decode(plain, "it")[0]
    listed = plain[:12] + b"LIST" + struct.pack("<I", 3) + b"odd\0" + plain[12:] + b"id3 junk"
    np.testing.assert_array_equal(wav.decode(listed, "it")[0], samples)
    body = plain[44:]
    np.testing.assert_array_equal(wav.decode(media.wav(body, size=0xFFFFFFFF), "it")[0], samples)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no RIFF WAVE file"),
        (b"OggS" + bytes(60), "no RIFF WAVE file"),
        (b"ID3" + bytes(60), "no RIFF WAVE file"),
        (b"RIFX" + media.wav16(TONE)[4:], "no RIFF WAVE file"),
        (media.wav16(TONE)[:-1], "chunk 'data' says 800 bytes, 799 are left"),
        (media.wav16(TONE)[:30], "chunk 'fmt ' says 16 bytes, 10 are left"),
        (media.wav16(TONE)[:36], "the format or the samples are missing"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "the format or the samples are missing"),
        (media.wav(b""), "no samples"),
        (media.wav(b"abc"), "3 bytes of samples are no whole number"),
        (media.wav(b"abcd", channels=0), "0 channels at 16000 Hz"),
        (media.wav(b"abcd", channels=1000), "1000 channels at 16000 Hz"),
        (media.wav(b"abcd", rate=0), "1 channels at 0 Hz"),
        (media.wav(b"abcd", rate=4_000_000), "1 channels at 4000000 Hz"),
        (media.wav(bytes(100_000), rate=1), "50000 samples at 1 Hz are too long"),
        (media.wav(b"abcd", bits=8, form=7), "encoding 7 with 8 bits"),
        (media.wav(b"abcd", bits=16, form=2), "encoding 2 with 16 bits"),
        (media.wav(b"abcd", bits=12), "encoding 1 with 12 bits"),
        (media.wav(bytes(40), form=0xFFFE), "encoding 65534 with 16 bits"),
        (media.wav(struct.pack("<f", np.nan), 32, form=3), "no numbers, or beyond 1e+06"),
        (media.wav(struct.pack("<f", -np.inf), 32, form=3), "no numbers, or beyond 1e+06"),
        (media.wav(struct.pack("<d", 1e300), 64, form=3), "no numbers, or beyond 1e+06"),
    ],
)
def test_broken_files(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=r"^it: ") as caught:
        read(data)
    assert words in caught.value.message
    assert caught.value.hint


@settings(max_examples=200, deadline=None)
@given(flips=st.lists(st.integers(0, 8 * 60), min_size=1, max_size=5))
def test_damaged_files(flips: list[int]) -> None:
    data = bytearray(media.wav16(TONE[:40]))
    for flip in flips:
        data[flip // 8] ^= 1 << flip % 8
    try:
        found = read(bytes(data), length=[None, 100])
    except InputError as error:
        told = error.message
    else:
        assert np.isfinite(found).all()
        return
    assert told.startswith("it: ")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ((TONE, 8000.0), "not (samples, rate)"),
        ((TONE, 0), "not (samples, rate)"),
        ((TONE.astype(np.int16), 8000), "not (samples, rate)"),
        ((TONE[:0], 8000), "not (samples, rate)"),
        ((TONE[None, None], 8000), "not (samples, rate)"),
        ((TONE * np.nan, 8000), "no numbers"),
        (TONE, "expected a path or bytes, got ndarray"),
        ("no.wav", "cannot be read: No such file"),
    ],
)
def test_items_that_are_no_sounds(item: Any, words: str) -> None:
    with pytest.raises(InputError, match=r"^it") as caught:
        read(item)
    assert words in caught.value.message


def test_the_same_file_gives_the_same_bytes() -> None:
    data = media.wav16(TONE, 44100)
    first, second = (read(data, "mel", "nmt", log="ln") for _ in range(2))
    assert first.tobytes() == second.tobytes()
