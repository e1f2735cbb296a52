"""The side-by-side benchmark: a model and some runtimes in, timings, agreement, load time and memory out.

`python -m bench.run` runs it over the benchmark models, `egc bench` over one model.
"""
