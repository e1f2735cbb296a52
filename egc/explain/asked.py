"""What the e-graph itself adds to the answer of a record to `--why-not`, each rule asked where it works."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import asdict

from egc.explain.again import Again
from egc.explain.fusion import why_no_fusion
from egc.explain.loops import why_no_nest
from egc.explain.premises import failure
from egc.explain.source import Record


def asked(known: Again, answer: Record, titles: Collection[str], calls: Sequence[int] | None) -> Record:
    """The keys that an answer of :func:`egc.explain.why_not.why_not` gets from the e-graph: of a rule for
    loops or fusion a verdict, of others the premise that fails at the ONNX nodes of ``titles``."""
    match known.record["rules"][answer["rule"]]["stage"]:
        case "loops":
            return why_no_nest(known, answer["rule"], calls)
        case "fusion":
            return why_no_fusion(known, answer["rule"], calls)
    return {"failure": asdict(failure(known, answer["rule"], titles))}
