"""What a PromQL expression refers to. Enough of the grammar for the expressions we ship."""

import re

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LABEL_LIST = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^{}]*)\}")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"(?<![\w:$.])([a-zA-Z_:][a-zA-Z0-9_:]*)(?!\s*\()(?![\w:])")
_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring"})
_MATCHER = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)")


def metric_names(expression: str) -> set[str]:
    """The names of the series an expression reads."""
    text = _LABEL_LIST.sub(" ", _STRING.sub('""', expression))
    text = _RANGE.sub(" ", _SELECTOR.sub(r"\1 ", text))
    return set(_NAME.findall(text)) - _KEYWORDS


def matched_labels(expression: str) -> dict[str, set[str]]:
    """The labels that its selectors match on, by metric name."""
    found: dict[str, set[str]] = {}
    for name, matchers in _SELECTOR.findall(_STRING.sub('""', expression)):
        found.setdefault(name, set()).update(_MATCHER.findall(matchers))
    return found


def listed_labels(expression: str) -> set[str]:
    """The labels that it groups or joins by."""
    lists = _LABEL_LIST.findall(_STRING.sub('""', expression))
    return {label.strip() for group in lists for label in group.split(",") if label.strip()}


def is_balanced(expression: str) -> bool:
    """Whether its brackets and quotes close in order."""
    closing = {")": "(", "]": "[", "}": "{"}
    open_brackets: list[str] = []
    text = _STRING.sub("", expression)
    for character in text:
        if character in "([{":
            open_brackets.append(character)
        elif character in closing and (not open_brackets or open_brackets.pop() != closing[character]):
            return False
    return not open_brackets and '"' not in text
