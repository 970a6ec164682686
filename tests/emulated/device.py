"""On the emulated device: python3 device.py MODEL.onnx INPUTS.npz OUTPUTS.npz; no op is fused."""

import sys

import numpy
import onnxruntime

model, inputs, outputs = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
with numpy.load(inputs) as arrays:
    found = session.run(None, dict(arrays))
numpy.savez(outputs, **{one.name: a for one, a in zip(session.get_outputs(), found, strict=True)})
