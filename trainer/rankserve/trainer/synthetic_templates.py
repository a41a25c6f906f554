"""How the templates of the synthetic prompts are made up, and the parts that all tasks share.

Each task has templates for training and others, in other words, that are held out for demos and tests of how
a ranker generalises. Slots in braces are filled by ``rankserve.trainer.synthetic``.
"""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Task:
    """One kind of request.

    Attributes:
        name: becomes the record's category.
        weight: share of the prompts, relative to other tasks.
        median_tokens: median answer length; per item where a template asks for ``{n}`` items, per passage
            token where it carries a ``{passage}`` and ``scales_with_passage``.
        training: templates for training.
        held_out: templates for everything else.
        phrases: things to ask for; each fits into any of ``REQUESTS``, which makes more training templates.
        sized: whether a wish for a size ("in one sentence") may follow.
        scales_with_passage: the answer is about as long as the passage times ``median_tokens``.
    """

    name: str
    weight: float
    median_tokens: float
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    phrases: tuple[str, ...] = ()
    sized: bool = False
    scales_with_passage: bool = False


@dataclass(slots=True, frozen=True)
class Size:
    """A wish for a size. ``tokens`` replaces the task's median, ``factor`` multiplies it."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]
    tokens: float | None = None
    factor: float = 1.0


SIZES = (
    Size(("in one sentence", "in a single sentence", "in one line"), ("using just one sentence",), tokens=28),
    Size(
        ("in two or three sentences", "in three sentences", "in a few sentences"),
        ("using two sentences or so",),
        tokens=65,
    ),
    Size(
        ("in one paragraph", "in a short paragraph", "within a paragraph"),
        ("as a single paragraph",),
        tokens=110,
    ),
    Size(
        ("in {k} paragraphs", "using {k} paragraphs", "with {k} paragraphs"),
        ("spread over {k} paragraphs",),
        tokens=100,
    ),
    Size(
        (
            "in about {words} words",
            "in {words} words or less",
            "in at most {words} words",
            "of {words} words",
        ),
        ("with roughly {words} words",),
        tokens=1.35,
    ),
    Size(
        ("in detail", "in great detail", "thoroughly", "at length", "in depth", "with all details"),
        ("with plenty of detail",),
        factor=1.9,
    ),
    Size(
        ("briefly", "in brief", "and keep it short", "concisely", "in a nutshell", "as short as possible"),
        ("but be brief", "short answer please"),
        factor=0.4,
    ),
    Size(("step by step", "with examples", "with one example"), ("with a few examples",), factor=1.4),
    Size(
        ("for a ten-year-old", "in simple words", "for beginners"),
        ("so that a child understands",),
        factor=0.75,
    ),
)

REQUESTS = (
    "Write {}.",
    "Create {}.",
    "Compose {}.",
    "Generate {}.",
    "Give me {}.",
    "Provide {}.",
    "Prepare {}.",
    "Make {}.",
    "Draft {}.",
    "Design {}.",
    "Show me {}.",
    "Let me have {}.",
    "Send me {}.",
    "Write me {}.",
    "Please produce {}.",
    "We need {} for our website.",
    "My boss asked for {}.",
    "I am looking for {}.",
    "I want you to write {}.",
    "Can you write {}?",
    "Could you give me {}?",
    "Will you prepare {} for me?",
    "For my class, write {}.",
    "Your task: {}.",
)

TEXT_NAMES = (
    "this text", "the following text", "the following passage", "this paragraph", "the text below",
    "these lines", "this message", "the following", "this", "the sentences below",
)  # fmt: skip
TEXT_JOINS = (":\n{}", ".\n\n{}", ": {}", ':\n"{}"', "\n\n{}", "?\n\n{}")

FRAMES_TRAINING = (
    "{}", "{}", "{}", "{}", "{}", "{}", "Please help me. {}", "{} Thank you.", "Hi! {}", "Hello! {}",
    "Hey, quick one. {}", "{} Thanks!", "You are a helpful assistant. {}", "{} I am in a hurry.",
)  # fmt: skip
FRAMES_HELD_OUT = ("{}", "{}", "{}", "{}", "I need some help: {}", "{} Many thanks!", "Good morning. {}")
