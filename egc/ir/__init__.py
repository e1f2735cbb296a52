"""The values that pass between the stages: types and dims, graphs, kernels and loop nests,
each with a text form.
"""
