"""A part taken out of an emitted IR, so that exactly what was built is compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

QUANTIZERS = frozenset({"FakeQuantize", "QuantizeLinear"})


def cut(path: Path, inputs: Sequence[str], outputs: Sequence[str], into: Path) -> None:
    """Write the piece of an IR between named tensors.

    Where it computes in INT8, an input that an INT8 part made comes with its quantization, as the
    engine has it (`<name>/float` is the tensor before it).
    """
    import openvino

    plain = _piece(path, inputs, outputs, {})
    if any(op.get_type_name() in QUANTIZERS for op in plain.get_ops()):
        model = openvino.Core().read_model(str(path))
        before = {name: f"{name}/float" for name in inputs if f"{name}/float" in _tensors(model)}
        plain = _piece(path, inputs, outputs, before)
    openvino.save_model(plain, str(into), compress_to_fp16=False)


def _piece(
    path: Path, inputs: Sequence[str], outputs: Sequence[str], before: dict[str, str]
) -> Any:
    import openvino
    from openvino import opset13

    model = openvino.Core().read_model(str(path))
    tensors = _tensors(model)
    results = [tensors[name] for name in outputs]
    parameters = []
    for name in inputs:
        old = tensors.get(before.get(name, name))
        if old is None:
            continue
        new = opset13.parameter(old.get_partial_shape(), old.get_element_type(), name=name)
        for reader in old.get_target_inputs():
            reader.replace_source_output(new.output(0))
        old.get_tensor().set_names(set())
        new.output(0).get_tensor().set_names({name})
        parameters.append(new)
    made = []
    for name, output in zip(outputs, results, strict=True):
        output.get_tensor().set_names({name})
        made.append(opset13.result(output))
    return openvino.Model(made, parameters, "part")


def _tensors(model: Any) -> dict[str, Any]:
    return {
        name: output
        for op in model.get_ordered_ops()
        if op.get_type_name() != "Result"
        for output in op.outputs()
        for name in output.get_names()
    }
