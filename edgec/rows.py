"""Samples, a file each, known by what they contain."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgec.runtime import npz
from edgec.types import Feeds

One = TypeVar("One")


@dataclass(frozen=True)
class Row:
    """The file of one sample, and the hash of its arrays."""

    path: Path
    digest: str


def rows(files: Sequence[Path]) -> list[Row]:
    """The samples in files of one each, in order."""
    return [Row(path, digest(npz.read(path, str(path)))) for path in files]


def stream(samples: Sequence[Row]) -> Iterator[tuple[Row, Feeds]]:
    """Samples with their arrays, one at a time."""
    for row in samples:
        yield row, npz.read(row.path, str(row.path))


def without(samples: Sequence[Row], digests: Sequence[str]) -> list[Row]:
    """The samples that are not among `digests`; equal ones count one by one."""
    left = Counter(digests)
    found = []
    for row in samples:
        if left[row.digest]:
            left[row.digest] -= 1
        else:
            found.append(row)
    return found


def spread(found: Sequence[One], most: int) -> list[One]:
    """At most `most` of them, evenly over all: data is often sorted by class."""
    count = min(most, len(found))
    return [found[index * len(found) // count] for index in range(count)]


def digest(feeds: Feeds) -> str:
    """The hash of a sample's arrays, by name, dtype, shape and content."""
    found = hashlib.sha256()
    for name, array in sorted(feeds.items()):
        found.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()
