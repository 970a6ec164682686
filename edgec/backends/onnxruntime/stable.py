"""The same bytes for the same model in onnxruntime's own format.

onnxruntime writes the flatbuffer from its end to its beginning: first the model, the same bytes
each time, and last, in front of it, a table of the operators' type names, in the order of a hash
map that follows memory addresses. Here that front part is written again, in sorted order.
Schema: onnxruntime/core/flatbuffers/schema/ort.fbs
"""

from __future__ import annotations

import struct
from typing import Any

from edgec.runtime.onnx_file import is_ort

ALIGNMENT = 64  # of the file's size; what a flatbuffer holds is aligned against its end
_MODEL, _RESOLVER = 1, 3  # slots of the root table InferenceSession
_SLOTS = {0, _MODEL, _RESOLVER}
_PLACEHOLDER = 0x7FFFFFFF


def stable(data: bytes) -> bytes:
    """A `.ort` file with its front part in sorted order; of a schema that is not known, as is."""
    import flatbuffers
    import onnxruntime.tools.ort_format_model  # noqa: F401, it makes the schema importable
    from ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    root = InferenceSession.GetRootAs(data, 0)
    model = root.Model()
    if not is_ort(data) or model is None or _used(root) != _SLOTS:
        return data
    position = model._tab.Pos
    vtable = position - struct.unpack_from("<i", data, position)[0]
    begin = min(position, vtable)
    builder = flatbuffers.Builder(4096)
    version = builder.CreateString(root.OrtVersion() or b"")
    resolver = _resolver(builder, root.KernelTypeStrResolver())
    builder.StartObject(_RESOLVER + 1)
    builder.PrependUOffsetTRelativeSlot(0, version, 0)
    builder.PrependUint32Slot(_MODEL, _PLACEHOLDER, 0)
    builder.PrependUOffsetTRelativeSlot(_RESOLVER, resolver, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"ORTM")
    front = bytearray(builder.Output())
    front += bytes(-(len(front) + len(data) - begin) % ALIGNMENT)
    table = InferenceSession.GetRootAs(front, 0)._tab
    slot = table.Pos + table.Offset(4 + 2 * _MODEL)
    struct.pack_into("<I", front, slot, len(front) + position - begin - slot)
    return bytes(front) + data[begin:]


def _used(root: Any) -> set[int]:
    """The slots of a table that are not empty."""
    table = root._tab
    vtable = table.Pos - struct.unpack_from("<i", table.Bytes, table.Pos)[0]
    size = struct.unpack_from("<H", table.Bytes, vtable)[0]
    return {slot for slot in range(size // 2 - 2) if table.Offset(4 + 2 * slot)}


def _resolver(builder: Any, found: Any) -> int:
    """A copy of the table KernelTypeStrResolver, its entries and their entries sorted by name."""
    entries = [found.OpKernelTypeStrArgs(i) for i in range(found.OpKernelTypeStrArgsLength())]
    made = []
    for entry in sorted(entries, key=lambda one: bytes(one.OpId())):
        kinds = [entry.KernelTypeStrArgs(i) for i in range(entry.KernelTypeStrArgsLength())]
        inner = []
        for kind in sorted(kinds, key=lambda one: bytes(one.KernelTypeStr())):
            places = [kind.Args(i) for i in range(kind.ArgsLength())]
            arguments = _vector(builder, [_place(builder, place) for place in places])
            inner.append(_table(builder, builder.CreateString(kind.KernelTypeStr()), arguments))
        vector = _vector(builder, inner)
        made.append(_table(builder, builder.CreateString(entry.OpId()), vector))
    vector = _vector(builder, made)
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    return int(builder.EndObject())


def _table(builder: Any, name: int, vector: int) -> int:
    """An entry: a name, and what belongs to it."""
    builder.StartObject(2)
    builder.PrependUOffsetTRelativeSlot(0, name, 0)
    builder.PrependUOffsetTRelativeSlot(1, vector, 0)
    return int(builder.EndObject())


def _place(builder: Any, found: Any) -> int:
    """An ArgTypeAndIndex: whether input or output (int8), and which."""
    builder.StartObject(2)
    builder.PrependInt8Slot(0, found.ArgType(), 0)
    builder.PrependUint32Slot(1, found.Index(), 0)
    return int(builder.EndObject())


def _vector(builder: Any, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
