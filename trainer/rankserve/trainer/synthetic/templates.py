"""Wordings that all tasks of the synthetic prompts share: sizes, requests, openers and closers.

Those for training and those held out, for demos and tests of how a ranker generalises, have nothing in
common.
"""

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Size:
    """A wish for a size. ``tokens`` replaces the task's median, ``factor`` multiplies it."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]
    tokens: float | None = None
    factor: float = 1.0


SIZES = (
    Size(
        (
            "in one sentence", "in a single sentence", "in one line", "in 1 sentence",
            "in no more than a sentence",
            "within one line", "in one short sentence",
        ),
        ("using just one sentence",),
        tokens=28,
    ),
    Size(
        (
            "in two or three sentences", "in three sentences", "in a few sentences", "in 2 sentences",
            "in two sentences", "within three sentences", "in a couple of sentences", "in 2-3 sentences",
        ),
        ("using two sentences or so",),
        tokens=65,
    ),
    Size(
        (
            "in one paragraph", "in a short paragraph", "within a paragraph", "in 1 paragraph",
            "in a paragraph", "in one single paragraph of text", "in a paragraph or so",
        ),
        ("as a single paragraph",),
        tokens=110,
    ),
    Size(
        (
            "in {k} paragraphs", "using {k} paragraphs", "with {k} paragraphs", "in about {k} paragraphs",
            "within {k} paragraphs", "in {k} short paragraphs", "over {k} paragraphs",
        ),
        ("spread over {k} paragraphs",),
        tokens=100,
    ),
    Size(
        (
            "in about {words} words", "in {words} words or less", "in at most {words} words",
            "of {words} words",
            "in around {words} words", "within {words} words", "using {words} words", "in {words} words",
            "in up to {words} words", "with a length of {words} words", "in no more than {words} words",
        ),
        ("with roughly {words} words",),
        tokens=1.35,
    ),
    Size(
        (
            "in detail", "in great detail", "thoroughly", "at length", "in depth", "with all details",
            "comprehensively", "exhaustively", "extensively", "in full detail", "as completely as possible",
            "in a very detailed way", "with every detail that matters", "and be thorough",
        ),
        ("with plenty of detail",),
        factor=1.9,
    ),
    Size(
        (
            "briefly", "in brief", "and keep it short", "concisely", "in a nutshell", "as short as possible",
            "very briefly", "shortly", "in short", "in a few words", "and be concise", "and stay brief",
            "without long explanations", "and make it a short answer", "quickly", "tersely",
        ),
        ("but be brief", "short answer please"),
        factor=0.4,
    ),
    Size(
        (
            "step by step", "with examples", "with one example", "and give examples", "with several examples",
            "one step at a time", "with concrete examples", "and add an example", "with illustrations",
        ),
        ("with a few examples",),
        factor=1.4,
    ),
    Size(
        (
            "for a ten-year-old", "in simple words", "for beginners", "in plain language", "for kids",
            "for a child", "in easy English", "for my grandmother", "for a young pupil", "without jargon",
        ),
        ("so that a child understands",),
        factor=0.75,
    ),
)  # fmt: skip

ACTION_FRAMES = (
    "{}.", "{}.", "{}.", "{}.", "{}", "{}!", "Please {}.", "Please, {}.", "Can you {}?", "Can you please {}?",
    "Would you {}?", "Could you maybe {}?", "Would you mind and {}?", "I'd like you to {}.",
    "I want you to {}.", "You should {}.", "You have to {}.", "Your task is to {}.", "Your job: {}.",
    "Task: {}.", "Try to {}.", "Help me to {}.", "Help us {}.", "Let us {}.", "Let's {}.", "Now {}.",
    "Next, {}.", "Go ahead and {}.", "Are you able to {}?", "How would you {}?", "Will you {} for me?",
    "I was asked to {}.", "It would be great if you could {}.", "Kindly {}.", "Just {}.",
    "The goal is to {}.",
    "I must {}.", "We would like to {}.", "Is it possible to {}?", "Suppose you had to {}.",
    "Use your knowledge to {}.",
)  # fmt: skip

PHRASE_FRAMES = (
    "Write {}.", "Create {}.", "Compose {}.", "Generate {}.", "Give me {}.", "Provide {}.", "Prepare {}.",
    "Make {}.", "Draft {}.", "Design {}.", "Show me {}.", "Let me have {}.", "Send me {}.", "Write me {}.",
    "Please produce {}.", "We need {} for our website.", "My boss asked for {}.", "I am looking for {}.",
    "I want you to write {}.", "Can you write {}?", "Could you give me {}?", "Will you prepare {} for me?",
    "For my class, write {}.", "Your task: {}.", "{}", "{}.", "{}, thanks.", "Now {}.", "How about {}?",
    "Got {}?", "May I have {}?", "Is there {}?", "I could use {}.", "Deliver {}.", "Supply {}.", "Invent {}.",
    "Think of {}.", "Develop {}.", "Suggest {}.", "Offer {}.",
    "Output {}.", "Return {}.", "The output should be {}.", "Give {}.", "Please give us {}.", "Present {}.",
    "What I want is {}.", "I have to hand in {} by Monday.", "My editor wants {}.", "All I ask for is {}.",
)  # fmt: skip

TEXT_NAMES = (
    "this text", "the following text", "the following passage", "this paragraph", "the text below",
    "these lines", "this message", "the following", "this", "the sentences below", "what follows", "it",
    "the following article", "this review", "the input", "this excerpt", "the note below", "the given text",
)  # fmt: skip
TEXT_NAMES_BEFORE = (
    "this text", "the text above", "the above", "this", "that", "these lines", "this message", "it",
    "the paragraph above", "this article", "the previous text", "the given passage",
)  # fmt: skip
TEXT_JOINS = (":\n{}", ".\n\n{}", ": {}", ':\n"{}"', "\n\n{}", '\n\n"{}"', ".\n\nText: {}", " - {}")
TEXT_LABELS = (
    ("Instruction", "Input"), ("Task", "Text"), ("### Instruction", "### Input"), ("Request", "Passage"),
    ("Question", "Context"), ("To do", "Document"),
)  # fmt: skip

OPENERS = (
    "Please help me.", "Hi!", "Hello!", "Hey, quick one.", "You are a helpful assistant.", "Hello there.",
    "I am a student.", "I have a question.", "For a school project:", "I run a small business.", "OK, next:",
    "You are an expert.", "I teach at a college.", "My friends and I were wondering.", "Dear assistant,",
    "This is for work.", "Question:", "Instruction:", "### Instruction:\n", "Sorry to bother you.", "Hey!",
    "We are preparing a meeting.", "I do not know much about this.", "Here is what I want:", "User:",
    "You are an AI that answers well.", "Good evening.", "So,", "One more thing.",
    "I am not a native speaker.",
)  # fmt: skip
CLOSERS = (
    "Thank you.", "Thanks!", "I am in a hurry.", "Thanks in advance.", "Cheers", "It is for my blog.",
    "Be honest.", "Make no mistakes.", "I appreciate it.", "Answer in English.", "Answer:", "\n### Response:",
    "\n\nResponse:", "Use correct grammar.", "This is important to me.", "Do your best.", "Assistant:",
    "It is for a friend.", "Take a deep breath.", "pls", "Thx", "No need to hurry.",
)  # fmt: skip

FRAMES_HELD_OUT = ("{}", "{}", "{}", "{}", "I need some help: {}", "{} Many thanks!", "Good morning. {}")
