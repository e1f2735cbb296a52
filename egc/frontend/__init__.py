"""In: an ONNX model (a file, bytes or a proto). Out: a Graph of few primitives, shapes inferred and
constants folded."""
