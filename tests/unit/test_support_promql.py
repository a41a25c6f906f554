"""The reader of PromQL that judges our dashboard sees what is in an expression."""

from support.promql import is_balanced, listed_labels, matched_labels, metric_names

EXPRESSION = (
    'histogram_quantile(0.99, sum by (job, le) (rate(a_bucket{job="$job", x=~"y|z"}[5m])))'
    " > on (job) group_left (v) max(b:c) and d offset 5m == 1"
)


def test_it_names_every_series_and_nothing_else() -> None:
    assert metric_names(EXPRESSION) == {"a_bucket", "b:c", "d"}
    assert metric_names('up{job="not_a_metric"} == 0') == {"up"}
    assert metric_names("rate(x_total[$__rate_interval]) * 1e3 / 2.5") == {"x_total"}


def test_it_knows_labels_that_are_matched_and_grouped_by() -> None:
    assert matched_labels(EXPRESSION) == {"a_bucket": {"job", "x"}}
    assert listed_labels(EXPRESSION) == {"job", "le", "v"}


def test_it_sees_brackets_that_do_not_close() -> None:
    assert is_balanced(EXPRESSION)
    assert not is_balanced("sum(rate(x[5m])")
    assert not is_balanced("sum(x})")
    assert not is_balanced('x{a="b}')
