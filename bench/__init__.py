"""The benchmark: `bench.make_models` makes its models, `bench.run` runs them side by side."""
