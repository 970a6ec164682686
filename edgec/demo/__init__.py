"""The demonstration: a real multimodal model and its data, without torch and without npm.

`towers` fetches two pretrained networks, `model` composes them into one ONNX file, `data` holds
the calibration and evaluation sets. `assets/NOTICE.md` has the licences.
"""
