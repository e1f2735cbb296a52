"""Artifact in, numpy arrays out: the `.egc` file, the threads, the session. Imports no compiler."""
