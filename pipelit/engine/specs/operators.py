"""The names of the 30 rule operators, in the contract's order.

What they do is `pipelit.engine.operators`; this is only what may be written in a rule.

Contract: operators.md §4.
"""

RULE_OPERATORS: tuple[str, ...] = (
    *("exists", "does_not_exist", "is_empty", "is_not_empty"),
    *("equals", "not_equals", "contains", "not_contains"),
    *("starts_with", "not_starts_with", "ends_with", "not_ends_with"),
    *("matches_regex", "not_matches_regex"),
    *("gt", "lt", "gte", "lte"),
    *("after", "before", "after_or_equal", "before_or_equal"),
    *("is_true", "is_false"),
    *("length_eq", "length_neq", "length_gt", "length_lt", "length_gte", "length_lte"),
)
