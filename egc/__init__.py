"""egc: an optimizing compiler for ONNX models built on equality saturation."""
