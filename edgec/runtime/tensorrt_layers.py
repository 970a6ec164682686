"""What TensorRT made of a network, read from the builder's own verbose log.

The log ends in a list "Layers:", one a line: name, type, tensors with their datatypes, and the ONNX
nodes that the layer came from. Without a GPU it is the only account of an engine there is
(an inspector would have to deserialise it). Written as TensorRT-RTX 1.7.1 prints it.
"""

import re
from typing import Any, List, Mapping, NamedTuple, Tuple

_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[.*?\], Outputs: \[(?P<outputs>.*?)\], TacticName: (?P<tactic>[^,]*), "
    r"StreamId: \d+(?:, EventId: \d+)?, Metadata: (?P<metadata>.*)$"
)
_TYPE = re.compile(r"Datatype: ([A-Za-z0-9]+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]\x1f]*)\]")
# Layers that multiply: convolution, matrix product, and what is fused when the engine is loaded.
PRODUCTS = frozenset({"correlation", "convolution", "deconvolution", "gemm", "runtime_fusion"})


class Layer(NamedTuple):
    """A layer of an engine: the datatypes of its inputs and outputs, and the ONNX nodes in it."""

    name: str
    kind: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    tactic: str
    nodes: Tuple[str, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Layer":
        """A layer that came as JSON."""
        texts = [str(row[key]) for key in ("name", "kind", "tactic")]
        inputs, outputs, nodes = (tuple(row[key]) for key in ("inputs", "outputs", "nodes"))
        return cls(texts[0], texts[1], inputs, outputs, texts[2], nodes)

    @property
    def multiplies(self) -> bool:
        """Whether it is a product or a convolution."""
        return self.kind in PRODUCTS or "conv" in self.kind or "gemm" in self.kind

    @property
    def int8(self) -> bool:
        """Whether what it multiplies comes in INT8."""
        return self.multiplies and "Int8" in self.inputs[:1]


def layers(log: str) -> List[Layer]:
    """The layers that a builder's log lists; none where it lists them in another way."""
    found = []
    for line in log.splitlines():
        match = _LAYER.match(line)
        if match is not None:
            found.append(
                Layer(
                    name=match["name"],
                    kind=match["kind"],
                    inputs=tuple(_TYPE.findall(match["inputs"])),
                    outputs=tuple(_TYPE.findall(match["outputs"])),
                    tactic=match["tactic"],
                    nodes=tuple(_NODE.findall(match["metadata"])),
                )
            )
    return found
