"""Graph and allowed fusions in, calls of fused kernels (tensor comprehensions, no order of execution yet) out."""
