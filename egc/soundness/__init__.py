"""Numeric soundness of rules: in come checked rule files, out come counterexamples.

Each rule that unites tensors is instantiated with random shapes, attributes and data that satisfy its
premises, and both sides are evaluated by :mod:`egc.ir.evaluate`.

    premises.py    a rule's premises → plans: relations resolved by the rules that derive them, patterns
                   unified
    sample.py      a plan → shapes, dtypes and attributes that satisfy it, operator by operator: fit.py by
                   operands.py and attributes.py
    data.py        … → arrays
    compare.py     both sides' values, by the rule's class
    symbolic.py    matches at symbolic extents, and what these turn out to be
    search.py      the search for a counterexample, and its shrinking
    check.py       what `egc rules check` prints of it
    show.py        arrays as it prints them
    cost.py        a rule's matches and time on a small and a large graph (workload.py)

Rules of loop nests are tried out on the nests of small kernels, one step after another:

    nest_kernels.py small kernels of every kind
    nest_cases.py  … with data, and the facts that a compiler would state of their loops
    nest_terms.py  a rule's match → the nests before and after it
    nest_run.py    a nest → the points that it computes, in order, and what comes out
    nests.py       the search for a counterexample
    nest_report.py what `egc rules check` prints of it
"""
