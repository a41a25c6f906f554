"""What of a chat is ranked. One place, so that every way in gives a chat the same score."""

from collections.abc import Sequence


def chat_ranking_text(user_turns: Sequence[str]) -> str:
    """The last user turn and the number of turns before it.

    Args:
        user_turns: what the user said, in order, without what is blank; at least one.
    """
    earlier = len(user_turns) - 1
    return f"[turn {earlier + 1}] {user_turns[-1]}" if earlier else user_turns[-1]
