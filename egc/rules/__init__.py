"""Rule files in; checked, named rules with their declarations out, ready for an e-graph."""

from egc.rules.book import RuleBook, load_rules
from egc.rules.diagnostics import Diagnostic, RuleFileError
from egc.rules.notes import ACCURACIES, RuleClass
from egc.rules.rule import Rule

__all__ = ["ACCURACIES", "Diagnostic", "Rule", "RuleBook", "RuleClass", "RuleFileError", "load_rules"]
