"""Templates of the synthetic prompts, all of our own writing.

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
        sized: whether a wish for a size ("in one sentence") may follow.
        scales_with_passage: the answer is about as long as the passage times ``median_tokens``.
    """

    name: str
    weight: float
    median_tokens: float
    training: tuple[str, ...]
    held_out: tuple[str, ...]
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
    Size(("in one sentence", "in a single sentence"), ("using just one sentence",), tokens=28),
    Size(("in two or three sentences", "in three sentences"), ("using two sentences or so",), tokens=65),
    Size(("in one paragraph", "in a short paragraph"), ("as a single paragraph",), tokens=110),
    Size(("in {k} paragraphs", "using {k} paragraphs"), ("spread over {k} paragraphs",), tokens=100),
    Size(
        ("in about {words} words", "in {words} words or less"), ("with roughly {words} words",), tokens=1.35
    ),
    Size(("in detail", "in great detail", "thoroughly"), ("with plenty of detail",), factor=1.9),
    Size(("briefly", "in brief", "and keep it short"), ("but be brief", "short answer please"), factor=0.4),
    Size(("step by step", "with examples"), ("with a few examples",), factor=1.4),
    Size(("for a ten-year-old", "in simple words"), ("so that a child understands",), factor=0.75),
)

FRAMES_TRAINING = ("{}", "{}", "{}", "{}", "Please help me. {}", "{} Thank you.", "Hi! {}", "Hello! {}")
FRAMES_HELD_OUT = ("{}", "{}", "{}", "{}", "I need some help: {}", "{} Many thanks!", "Good morning. {}")

TASKS = (
    Task("yes_no", 4, 26,
         ("Answer yes or no: {question}?", "Yes or no, {question}?", "{question}? Reply with yes or no only.",
          "True or false: {question}?", "Just tell me yes or no. {question}?"),
         ("{question}? A plain yes or no is enough.", "I only want a yes or a no: {question}?")),
    Task("fact", 5, 34,
         ("Who {fact}?", "Tell me who {fact}.", "Name the person who {fact}.",
          "What is the capital of {country}?",
          "When was the person born who {fact}?", "What currency is used in {country}?",
          "Which language is spoken in {country}?", "How many people live in {country}?"),
         ("Can you name who {fact}?", "Give the name of whoever {fact}.",
          "Which city is the capital of {country}?",
          "What is the population of {country}?", "What do people pay with in {country}?")),
    Task("arithmetic", 3, 34,
         ("What is {a} plus {b}?", "Calculate {a} * {b}.", "How much is {a} minus {b}?", "Divide {a} by {b}.",
          "What is {b} percent of {a}?", "Solve: {a} + {b} - 7 ="),
         ("Compute the sum of {a} and {b}.", "What do I get when I multiply {a} by {b}?",
          "{a} divided by {b} is?")),
    Task("word_problem", 3, 120,
         ("A shop sells {a} boxes in {b} days. How many boxes a day is that? Show your work.",
          "A train covers {a} km in {b} hours. What is its average speed? Explain each step.",
          "If {b} pencils cost {a} cents, what do 12 pencils cost? Show the calculation."),
         ("A tank holds {a} litres and loses {b} litres an hour. When is it empty? Explain your reasoning.",
          "{b} workers earn {a} euros together. What does each of them get? Show the steps.")),
    Task("multiple_choice", 2, 16,
         ("Which of these is about {topic}? A) {topic2} B) {topic} C) {topic3}. Answer with the letter only.",
          "Choose the best option. Question: what matters most in {topic}? A) cost B) time C) safety D) luck",
          "Pick one letter. The text speaks of... A) {topic} B) {topic2}\n\nText: {passage}"),
         ("Select the right letter: {topic} belongs to A) nature B) technology C) society D) none of these",
          "Only give the letter. Which is older, A) {topic} or B) {topic2}?")),
    Task("classify", 4, 13,
         ("Classify the sentiment as positive or negative: {passage}",
          "Is the following review positive, negative or neutral?\n\n{passage}",
          "Label this text as news, opinion or advertisement.\n\n{passage}",
          "Which topic does this text belong to: sports, business, travel or science?\n\n{passage}",
          "Categorize the text below with one word.\n\n{passage}",
          "Detect the language of this text: {passage}"),
         ("Decide whether the mood of this text is good or bad.\n\n{passage}",
          "Assign one category (complaint, praise, question) to the message.\n\n{passage}",
          "What is the sentiment of the text below? One word.\n\n{passage}")),
    Task("extract", 4, 28,
         ("Extract all places mentioned in the text.\n\n{passage}", "List the verbs in this text: {passage}",
          "Find the numbers in the following passage.\n\n{passage}",
          "What is the subject of the first sentence?\n\n{passage}",
          "Give three keywords for this text.\n\n{passage}"),
         ("Which nouns appear in this text?\n\n{passage}", "Pull out every date and number.\n\n{passage}",
          "Name the main keyword of the passage below.\n\n{passage}")),
    Task("translate", 4, 1.25,
         ("Translate into {language}: {passage}", "Translate the following text to {language}.\n\n{passage}",
          "How do you say this in {language}?\n\n{passage}", "Give the {language} translation of: {passage}",
          "Turn this text into {language}.\n\n{passage}"),
         ("Please put this into {language}: {passage}",
          "I need a {language} version of the text below.\n\n{passage}"),
         scales_with_passage=True),
    Task("rewrite", 5, 1.25,
         ("Correct the grammar of this text: {passage}", "Rewrite the text in a formal tone.\n\n{passage}",
          "Paraphrase the following.\n\n{passage}", "Edit this text for clarity: {passage}",
          "Rewrite in the past tense: {passage}", "Make this text sound friendlier.\n\n{passage}"),
         ("Reword the passage below in your own words.\n\n{passage}",
          "Fix spelling and punctuation.\n\n{passage}", "Change the text to the future tense: {passage}"),
         scales_with_passage=True),
    Task("summarise", 4, 0.7,
         ("Summarize the following text.\n\n{passage}", "Give a summary of this passage: {passage}",
          "What is the main idea of this text?\n\n{passage}", "Shorten this text: {passage}",
          "Sum up the article below.\n\n{passage}"),
         ("Write a summary of the text below.\n\n{passage}", "Condense this passage.\n\n{passage}"),
         scales_with_passage=True),
    Task("headline", 3, 20,
         ("Write a headline for an article about {topic}.", "Suggest a title for a talk on {topic}.",
          "Create a slogan for a company in {topic}.", "Write a tweet about {topic}.",
          "Invent a pun on {topic}.",
          "Generate a catchy title for a book on {topic}."),
         ("Come up with a headline on {topic}.", "I want a slogan for a campaign about {topic}.",
          "What would be a good title for a film about {topic}?")),
    Task("define", 5, 64,
         ("Define {topic}.", "What is meant by {topic}?", "What does the term {topic} mean?",
          "Give a definition of {topic}.", "What is {topic}?"),
         ("How would a dictionary define {topic}?", "What do people mean by {topic}?")),
    Task("explain", 9, 190,
         ("Explain {topic}.", "Explain how {topic} came about.", "Describe {topic}.",
          "Why is {topic} important?",
          "Tell me about {topic}.", "How does {topic} work?", "Discuss the impact of {topic} on society.",
          "What should I know about {topic}?", "Describe the role of {topic} in daily life."),
         ("Could you explain {topic} to me?", "Give me an overview of {topic}.",
          "In what way does {topic} matter today?", "Please describe what makes {topic} interesting."),
         sized=True),
    Task("how_to", 6, 240,
         ("How do I get started with {topic}?", "Give me instructions to learn about {topic}.",
          "Write a beginner's guide to {topic}.", "What are the steps to become an expert in {topic}?",
          "Provide a tutorial on {topic}.", "How can I teach {topic} to a class?"),
         ("I am new to {topic}. How should I begin?",
          "Write instructions for somebody who wants to try {topic}.",
          "Guide me through the basics of {topic}."),
         sized=True),
    Task("compare", 5, 230,
         ("Compare {topic} and {topic2}.", "What is the difference between {topic} and {topic2}?",
          "Contrast {topic} with {topic2}.", "List the pros and cons of {topic}.",
          "What are the advantages and disadvantages of {topic}?",
          "Discuss the similarities of {topic} and {topic2}."),
         ("How do {topic} and {topic2} differ?", "Weigh the benefits of {topic} against its drawbacks.",
          "Write a comparison of {topic} and {topic2}."),
         sized=True),
    Task("list_short", 4, 8,
         ("List {n} words related to {topic}.", "Name {n} things that remind you of {topic}.",
          "Give me {n} adjectives for {topic}.", "Suggest {n} names for a club about {topic}.",
          "Write {n} hashtags for {topic}.", "Provide {n} synonyms or terms used in {topic}."),
         ("I need {n} terms from {topic}.", "Think of {n} short names for a shop about {topic}.",
          "Which {n} words describe {topic} best?")),
    Task("list_long", 6, 24,
         ("List {n} facts about {topic}.", "Give {n} tips on {topic}.",
          "Give me {n} reasons to care about {topic}.",
          "Name {n} benefits of {topic} and explain each.", "What are {n} common mistakes in {topic}?",
          "Generate {n} ideas for a project about {topic}.", "Create a list of {n} questions about {topic}."),
         ("Tell me {n} facts concerning {topic}.",
          "I would like {n} ideas around {topic}, each with a sentence.",
          "Share {n} tips for people interested in {topic}.")),
    Task("table", 3, 22,
         ("Make a table with {n} rows about {topic}.",
          "Create a table of {n} examples of {topic} with a comment.",
          "Produce a CSV file with {n} lines on {topic}."),
         ("Show {n} aspects of {topic} as a table.", "Build a table that has {n} rows on {topic}.")),
    Task("quiz", 2, 38,
         ("Write a quiz with {n} multiple choice questions on {topic}.",
          "Create {n} exam questions with answers about {topic}."),
         ("Prepare a test on {topic}: {n} questions and the answers.",)),
    Task("plan", 3, 55,
         ("Plan a trip of {n} days to {place}.", "Create an itinerary for {n} days in {place}.",
          "Write a study plan of {n} weeks for {topic}."),
         ("I will be in {place} for {n} days. What should I do each day?",
          "Set up a schedule of {n} weeks to learn {topic}.")),
    Task("story", 6, 370,
         ("Write a story about {character}.", "Tell me a story about {character} in {place}.",
          "Write a fairy tale about {character}.",
          "Create a short story in which {character} visits {place}.",
          "Write the first chapter of a novel about {character}.",
          "Invent a bedtime story about {character}."),
         ("I would love to read a story with {character}.", "Make up a tale about {character} and {place}.",
          "Compose a story set in {place} about {character}."),
         sized=True),
    Task("poem", 4, 140,
         ("Write a poem about {topic}.", "Compose a song about {character}.", "Write a sonnet on {topic}.",
          "Create a rhyme about {character}.", "Write a poem in which {character} dreams of {place}."),
         ("Please write some verses about {topic}.", "Can you make a poem out of {topic}?",
          "I want a song about {character}.")),
    Task("haiku", 2, 26,
         ("Write a haiku about {topic}.", "Compose a haiku on {character}.",
          "Write a two-line rhyme about {topic}."),
         ("Make me a haiku about {topic}.", "A haiku about {character}, please.")),
    Task("essay", 5, 420,
         ("Write an essay about {topic}.", "Write a blog post on {topic}.", "Write an article about {topic}.",
          "Write a speech about {topic}.", "Draft a report on {topic}.",
          "Write a research proposal on {topic}."),
         ("I need an essay on {topic}.", "Produce a long article that covers {topic}.",
          "Compose a blog post dealing with {topic}."),
         sized=True),
    Task("email", 5, 170,
         ("Write an email to {recipient}.", "Draft a letter to {recipient}.",
          "Compose a message to {recipient}.",
          "Help me write a polite note to {recipient}."),
         ("I have to write an email to {recipient}. Draft it.", "Formulate a letter for {recipient}."),
         sized=True),
    Task("dialogue", 3, 260,
         ("Write a dialogue between {character} and {character2}.",
          "Write a scene of a play with {character} in {place}.",
          "Pretend you are {character} and tell me about your day.",
          "Write an interview with {character}."),
         ("Let {character} and {character2} have a conversation about {topic}.",
          "Act as {character} and describe your life in {place}.")),
    Task("code_function", 6, 180,
         ("Write a {code_language} function that {code_task}.",
          "Implement code in {code_language} that {code_task}.",
          "How do I write a method in {code_language} that {code_task}?",
          "Create a {code_language} function which {code_task} and add tests.",
          "Show me {code_language} code that {code_task}."),
         ("I need a function in {code_language} that {code_task}.",
          "Give me {code_language} source code which {code_task}.")),
    Task("code_one_line", 3, 50,
         ("Write a one-liner in {code_language} that {code_task}.", "Write a regular expression for {topic}.",
          "Write a SQL query that counts the rows about {topic}.",
          "Which shell command lists the files about {topic}?"),
         ("One line of {code_language} that {code_task}, please.",
          "What SQL query finds the newest row about {topic}?")),
    Task("code_program", 4, 430,
         ("Write a {code_language} program: {code_program}.", "Build {code_program} in {code_language}.",
          "Develop {code_program} using {code_language} and explain the design.",
          "Write the full source code of {code_program} in {code_language}."),
         ("I want to create {code_program} with {code_language}. Write all the code.",
          "Program {code_program} for me in {code_language}.")),
)  # fmt: skip
