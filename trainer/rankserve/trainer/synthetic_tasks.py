"""The tasks of the synthetic prompts with their templates, all of our own writing."""

from rankserve.trainer.synthetic_templates import Task

TASKS = (
    Task(
        "yes_no", weight=4, median_tokens=26,
        training=(
            "Answer yes or no: {question}?", "Yes or no, {question}?",
            "{question}? Reply with yes or no only.", "True or false: {question}?",
            "Just tell me yes or no. {question}?", "Is it true or false: {question}?",
            "{question}? Yes or no.", "Quick question: {question}?", "Please confirm: {question}?",
            "I wonder, {question}?", "{question}?", "Settle a bet for us, {question}?",
            "Answer with one word: {question}?",
        ),
        held_out=(
            "{question}? A plain yes or no is enough.", "I only want a yes or a no: {question}?",
        ),
    ),
    Task(
        "fact", weight=5, median_tokens=34,
        training=(
            "Who {fact}?", "Tell me who {fact}.", "Name the person who {fact}.",
            "What is the capital of {country}?", "When was the person born who {fact}?",
            "What currency is used in {country}?", "Which language is spoken in {country}?",
            "How many people live in {country}?", "Tell me the capital city of {country}.",
            "What is the official language of {country}?", "On which continent is {country}?",
            "Which countries border {country}?", "What is the national dish of {country}?",
            "In which year was the person born who {fact}?", "Do you know who {fact}?",
            "I forgot who {fact}.", "Which person {fact}?", "What was the name of the person who {fact}?",
            "Where is {country}?", "Name a river in {country}.", "What colours has the flag of {country}?",
        ),
        held_out=(
            "Can you name who {fact}?", "Give the name of whoever {fact}.",
            "Which city is the capital of {country}?", "What is the population of {country}?",
            "What do people pay with in {country}?",
        ),
    ),
    Task(
        "arithmetic", weight=3, median_tokens=34,
        training=(
            "What is {a} plus {b}?", "Calculate {a} * {b}.", "How much is {a} minus {b}?",
            "Divide {a} by {b}.", "What is {b} percent of {a}?", "Solve: {a} + {b} - 7 =",
            "What is the square of {b}?", "{a} + {b} = ?", "Subtract {b} from {a}.",
            "Convert {a} cm to metres.", "Convert {b} degrees Celsius to Fahrenheit.",
            "Is {a} larger than {b} squared?", "Add {a}, {b} and 10.",
            "What is the remainder of {a} divided by {b}?", "Evaluate {a} - {b} * 2.",
            "Give the result of {b} times 6.",
        ),
        held_out=(
            "Compute the sum of {a} and {b}.", "What do I get when I multiply {a} by {b}?",
            "{a} divided by {b} is?",
        ),
    ),
    Task(
        "word_problem", weight=3, median_tokens=120,
        training=(
            "A shop sells {a} boxes in {b} days. How many boxes a day is that? Show your work.",
            "A train covers {a} km in {b} hours. What is its average speed? Explain each step.",
            "If {b} pencils cost {a} cents, what do 12 pencils cost? Show the calculation.",
            "A farmer has {a} apples and puts {b} in each crate. How many crates? Give your reasoning.",
            "A book has {a} pages and Anna reads {b} a day. How long does she need? Solve it step by step.",
            "A car uses {b} litres for {a} km. How much does it use for 250 km? Show all steps.",
            "Two pipes fill {a} litres in {b} minutes. And 1000 litres? Explain your result.",
        ),
        held_out=(
            "A tank holds {a} litres and loses {b} litres an hour. When is it empty? Explain your reasoning.",
            "{b} workers earn {a} euros together. What does each of them get? Show the steps.",
        ),
    ),
    Task(
        "multiple_choice", weight=2, median_tokens=16,
        training=(
            "Which is about {topic}? A) {topic2} B) {topic} C) {topic3}. Answer with the letter only.",
            "Choose the best option. What matters most in {topic}? A) cost B) time C) safety D) luck",
            "Pick one letter. The text speaks of... A) {topic} B) {topic2}\n\nText: {passage}",
            "Question: which one belongs to {topic}? Options: A. {topic} B. {topic2} C. {topic3}. Answer:",
            "Choose A, B or C. {topic} is mostly a matter of A: money B: health C: culture",
            "Multiple choice: who {fact}? 1) a scientist 2) an artist 3) a traveller. Give the number.",
            "{question}? a) yes b) no c) nobody knows",
        ),
        held_out=(
            "Select the right letter: {topic} belongs to A) nature B) technology C) society D) none of these",
            "Only give the letter. Which is older, A) {topic} or B) {topic2}?",
        ),
    ),
    Task(
        "classify", weight=4, median_tokens=13,
        training=(
            "Classify the sentiment as positive or negative: {passage}",
            "Is the following review positive, negative or neutral?\n\n{passage}",
            "Label this text as news, opinion or advertisement.\n\n{passage}",
            "Which topic does this text belong to: sports, business, travel or science?\n\n{passage}",
            "Categorize the text below with one word.\n\n{passage}",
            "Detect the language of this text: {passage}", "Classify {text} as spam or not spam{given}",
            "What is the tone of {text}{given}", "Is {text} formal or informal{given}",
            "Rate {text} from 1 to 5 stars{given}", "Tell me if {text} is positive{given}",
            "Identify the genre of {text}{given}", "Does {text} express joy or anger{given}",
            "Put {text} into one of these groups: health, money, culture{given}",
            "Name the emotion in {text}{given}", "Is the author of {text} satisfied{given}",
            "Tag {text} with a topic{given}", "Sort {text} into fact or opinion{given}",
            "What kind of text is this{given}",
        ),
        held_out=(
            "Decide whether the mood of this text is good or bad.\n\n{passage}",
            "Assign one category (complaint, praise, question) to the message.\n\n{passage}",
            "What is the sentiment of the text below? One word.\n\n{passage}",
        ),
    ),
    Task(
        "extract", weight=4, median_tokens=28,
        training=(
            "Extract all places mentioned in the text.\n\n{passage}",
            "List the verbs in this text: {passage}",
            "Find the numbers in the following passage.\n\n{passage}",
            "What is the subject of the first sentence?\n\n{passage}",
            "Give three keywords for this text.\n\n{passage}", "Find the names of persons in {text}{given}",
            "Extract the adjectives of {text}{given}", "Identify the key words of {text}{given}",
            "List the animals mentioned in {text}{given}", "Which objects does {text} mention{given}",
            "Get the first and the last word of {text}{given}", "How many sentences has {text}{given}",
            "Who is {text} about{given}", "Pick the most important word of {text}{given}",
        ),
        held_out=(
            "Which nouns appear in this text?\n\n{passage}", "Pull out every date and number.\n\n{passage}",
            "Name the main keyword of the passage below.\n\n{passage}",
        ),
    ),
    Task(
        "translate", weight=4, median_tokens=1.25, scales_with_passage=True,
        training=(
            "Translate into {language}: {passage}",
            "Translate the following text to {language}.\n\n{passage}",
            "How do you say this in {language}?\n\n{passage}",
            "Give the {language} translation of: {passage}", "Turn this text into {language}.\n\n{passage}",
            "Translate {text} into {language}{given}", "Translate {text} to {language}{given}",
            "Convert {text} to {language}{given}", "Write {text} in {language}{given}",
            "Express {text} in {language}{given}", "How would you say {text} in {language}{given}",
            "What is {text} in {language}{given}",
        ),
        held_out=(
            "Please put this into {language}: {passage}",
            "I need a {language} version of the text below.\n\n{passage}",
        ),
    ),
    Task(
        "rewrite", weight=5, median_tokens=1.25, scales_with_passage=True,
        training=(
            "Correct the grammar of this text: {passage}", "Rewrite the text in a formal tone.\n\n{passage}",
            "Paraphrase the following.\n\n{passage}", "Edit this text for clarity: {passage}",
            "Rewrite in the past tense: {passage}", "Make this text sound friendlier.\n\n{passage}",
            "Rewrite {text} so that it is easier to read{given}", "Proofread {text}{given}",
            "Improve {text}{given}", "Simplify {text}{given}", "Rephrase {text}{given}",
            "Polish {text}{given}", "Change {text} into the passive voice{given}",
            "Make {text} more polite{given}", "Convert {text} to the first person{given}",
            "Correct all errors in {text}{given}", "Edit {text}{given}",
            "Rewrite {text} as a newspaper would print it{given}",
        ),
        held_out=(
            "Reword the passage below in your own words.\n\n{passage}",
            "Fix spelling and punctuation.\n\n{passage}", "Change the text to the future tense: {passage}",
        ),
    ),
    Task(
        "summarise", weight=4, median_tokens=0.7, scales_with_passage=True,
        training=(
            "Summarize the following text.\n\n{passage}", "Give a summary of this passage: {passage}",
            "What is the main idea of this text?\n\n{passage}", "Shorten this text: {passage}",
            "Sum up the article below.\n\n{passage}", "Summarize {text}{given}",
            "Give a short version of {text}{given}", "What does {text} say{given}",
            "Write an abstract of {text}{given}", "Outline {text}{given}", "What is {text} about{given}",
            "Recap {text}{given}", "Reduce {text} to the essentials{given}",
        ),
        held_out=(
            "Write a summary of the text below.\n\n{passage}", "Condense this passage.\n\n{passage}",
        ),
    ),
    Task(
        "headline", weight=3, median_tokens=20,
        training=(
            "Write a headline for an article about {topic}.", "Suggest a title for a talk on {topic}.",
            "Create a slogan for a company in {topic}.", "Write a tweet about {topic}.",
            "Invent a pun on {topic}.", "Generate a catchy title for a book on {topic}.",
        ),
        phrases=(
            "a headline for a story on {topic}", "a title for an essay about {topic}",
            "a slogan about {topic}", "a catchphrase for {topic}", "a one-line advertisement for {topic}",
            "a caption for a photo of {topic}", "a tagline for a shop that deals in {topic}",
            "a subject line for a newsletter on {topic}", "a motto for fans of {topic}",
            "a joke about {topic}", "a title for a story about {character}",
        ),
        held_out=(
            "Come up with a headline on {topic}.", "I want a slogan for a campaign about {topic}.",
            "What would be a good title for a film about {topic}?",
        ),
    ),
    Task(
        "define", weight=5, median_tokens=64,
        training=(
            "Define {topic}.", "What is meant by {topic}?", "What does the term {topic} mean?",
            "Give a definition of {topic}.", "What is {topic}?", "{topic}: what is it?",
            "What does one call {topic}?", "Briefly define {topic}.", "What is the meaning of {topic}?",
            "What are {topic}?",
        ),
        phrases=(
            "a definition of {topic}", "the meaning of {topic}", "a dictionary entry for {topic}",
        ),
        held_out=(
            "How would a dictionary define {topic}?", "What do people mean by {topic}?",
        ),
    ),
    Task(
        "explain", weight=9, median_tokens=190, sized=True,
        training=(
            "Explain {topic}.", "Explain how {topic} came about.", "Describe {topic}.",
            "Why is {topic} important?", "Tell me about {topic}.", "How does {topic} work?",
            "Discuss the impact of {topic} on society.", "What should I know about {topic}?",
            "Describe the role of {topic} in daily life.", "Teach me about {topic}.", "Talk about {topic}.",
            "Elaborate on {topic}.", "Outline the history of {topic}.", "Why do people care about {topic}?",
            "What do experts say about {topic}?", "Analyze {topic}.", "What is the future of {topic}?",
            "How has {topic} changed over time?", "Discuss {topic}.",
            "What are the causes and effects of {topic}?", "Where does {topic} come from?",
            "Help me understand {topic}.",
        ),
        phrases=(
            "an explanation of {topic}", "a description of {topic}", "information about {topic}",
            "an introduction to {topic}", "some background on {topic}", "an overview about {topic}",
            "an analysis of {topic}", "an account of {topic}", "details about {topic}",
        ),
        held_out=(
            "Could you explain {topic} to me?", "Give me an overview of {topic}.",
            "In what way does {topic} matter today?", "Please describe what makes {topic} interesting.",
        ),
    ),
    Task(
        "how_to", weight=6, median_tokens=240, sized=True,
        training=(
            "How do I get started with {topic}?", "Give me instructions to learn about {topic}.",
            "Write a beginner's guide to {topic}.", "What are the steps to become an expert in {topic}?",
            "Provide a tutorial on {topic}.", "How can I teach {topic} to a class?", "How to master {topic}?",
            "Show me how to start with {topic}.", "Describe the process behind {topic}.",
            "How can I improve my knowledge of {topic}?", "What is the best way to learn {topic}?",
            "How do I explain {topic} to my team and organise it?", "Walk me through {topic}.",
        ),
        phrases=(
            "a guide to {topic}", "a manual for {topic}", "instructions for {topic}",
            "a tutorial about {topic}", "a lesson on {topic}", "a checklist for getting into {topic}",
            "a course outline for {topic}", "a recipe for success in {topic}",
        ),
        held_out=(
            "I am new to {topic}. How should I begin?",
            "Write instructions for somebody who wants to try {topic}.",
            "Guide me through the basics of {topic}.",
        ),
    ),
    Task(
        "compare", weight=5, median_tokens=230, sized=True,
        training=(
            "Compare {topic} and {topic2}.", "What is the difference between {topic} and {topic2}?",
            "Contrast {topic} with {topic2}.", "List the pros and cons of {topic}.",
            "What are the advantages and disadvantages of {topic}?",
            "Discuss the similarities of {topic} and {topic2}.", "{topic} or {topic2}: which is better?",
            "{topic} versus {topic2}", "Is {topic} more useful than {topic2}? Argue.",
            "Evaluate {topic} against {topic2}.", "What do {topic} and {topic2} have in common?",
            "What speaks for and against {topic}?",
        ),
        phrases=(
            "a comparison between {topic} and {topic2}",
            "an analysis of the differences between {topic} and {topic2}",
            "a list of pros and cons of {topic}", "arguments for and against {topic}",
            "the strengths and weaknesses of {topic}",
        ),
        held_out=(
            "How do {topic} and {topic2} differ?", "Weigh the benefits of {topic} against its drawbacks.",
            "Write a comparison of {topic} and {topic2}.",
        ),
    ),
    Task(
        "list_short", weight=4, median_tokens=8,
        training=(
            "List {n} words related to {topic}.", "Name {n} things that remind you of {topic}.",
            "Give me {n} adjectives for {topic}.", "Suggest {n} names for a club about {topic}.",
            "Write {n} hashtags for {topic}.", "Provide {n} synonyms or terms used in {topic}.",
            "{n} words that rhyme with something in {topic}.",
            "Brainstorm {n} names for a magazine on {topic}.", "What are {n} terms of {topic}?",
            "Mention {n} objects linked to {topic}.",
        ),
        phrases=(
            "{n} words about {topic}", "{n} terms from the field of {topic}", "{n} names for a {topic} club",
            "{n} keywords on {topic}", "{n} hashtags on {topic}", "{n} adjectives that fit {topic}",
            "a list of {n} words from {topic}", "{n} nicknames for {character}",
        ),
        held_out=(
            "I need {n} terms from {topic}.", "Think of {n} short names for a shop about {topic}.",
            "Which {n} words describe {topic} best?",
        ),
    ),
    Task(
        "list_long", weight=6, median_tokens=24,
        training=(
            "List {n} facts about {topic}.", "Give {n} tips on {topic}.",
            "Give me {n} reasons to care about {topic}.", "Name {n} benefits of {topic} and explain each.",
            "What are {n} common mistakes in {topic}?", "Generate {n} ideas for a project about {topic}.",
            "Create a list of {n} questions about {topic}.", "What are {n} ways to enjoy {topic}?",
            "Describe {n} types of {topic}.", "Mention {n} problems with {topic} and a solution for each.",
            "Brainstorm {n} activities around {topic}.", "Explain {n} reasons why {topic} matters.",
            "Outline {n} steps towards {topic}.",
        ),
        phrases=(
            "{n} facts about {topic}", "{n} tips for {topic}", "{n} reasons for {topic}",
            "{n} examples of {topic} with a sentence each", "{n} ideas for {topic}",
            "{n} questions about {topic}", "{n} ways to improve {topic}", "{n} suggestions about {topic}",
            "{n} myths about {topic}", "a list of {n} things to know about {topic}",
            "{n} bullet points on {topic}",
        ),
        held_out=(
            "Tell me {n} facts concerning {topic}.",
            "I would like {n} ideas around {topic}, each with a sentence.",
            "Share {n} tips for people interested in {topic}.",
        ),
    ),
    Task(
        "table", weight=3, median_tokens=22,
        training=(
            "Make a table with {n} rows about {topic}.",
            "Create a table of {n} examples of {topic} with a comment.",
            "Produce a CSV file with {n} lines on {topic}.", "Arrange {n} facts about {topic} in columns.",
            "Put {n} types of {topic} into a table.",
        ),
        phrases=(
            "a table with {n} rows on {topic}", "a spreadsheet of {n} entries about {topic}",
            "an overview table of {n} kinds of {topic}",
        ),
        held_out=(
            "Show {n} aspects of {topic} as a table.", "Build a table that has {n} rows on {topic}.",
        ),
    ),
    Task(
        "quiz", weight=2, median_tokens=38,
        training=(
            "Write a quiz with {n} multiple choice questions on {topic}.",
            "Create {n} exam questions with answers about {topic}.",
            "Test me on {topic} with {n} questions and give the solutions.",
            "Ask me {n} questions about {topic} and then answer them.",
        ),
        phrases=(
            "{n} quiz questions about {topic}", "an exam with {n} questions on {topic}",
            "{n} multiple choice questions about {topic} with solutions",
            "a worksheet with {n} exercises on {topic}",
        ),
        held_out=(
            "Prepare a test on {topic}: {n} questions and the answers.",
        ),
    ),
    Task(
        "plan", weight=3, median_tokens=55,
        training=(
            "Plan a trip of {n} days to {place}.", "Create an itinerary for {n} days in {place}.",
            "Write a study plan of {n} weeks for {topic}.", "Organise {n} days in {place} for a family.",
            "What can one do in {place} in {n} days? Plan it day by day.",
        ),
        phrases=(
            "a plan for {n} days in {place}", "a travel itinerary of {n} days in {place}",
            "a timetable for {n} weeks of {topic}", "a {n}-day programme for a visit to {place}",
        ),
        held_out=(
            "I will be in {place} for {n} days. What should I do each day?",
            "Set up a schedule of {n} weeks to learn {topic}.",
        ),
    ),
    Task(
        "story", weight=6, median_tokens=370, sized=True,
        training=(
            "Write a story about {character}.", "Tell me a story about {character} in {place}.",
            "Write a fairy tale about {character}.",
            "Create a short story in which {character} visits {place}.",
            "Write the first chapter of a novel about {character}.",
            "Invent a bedtime story about {character}.",
            "Tell a story that begins with {character} leaving {place}.",
            "Narrate the adventures of {character}.", "Imagine {character} in {place} and tell what happens.",
            "Continue: Once upon a time there was {character}",
        ),
        phrases=(
            "a story about {character}", "a short story about {character} in {place}",
            "a fairy tale with {character}", "an adventure of {character} in {place}",
            "a fable with {character}", "a ghost story set in {place}",
            "a chapter of a novel with {character}", "a legend about {character}",
            "a science fiction story about {topic}", "a story for children about {topic}",
            "a mystery about {character} and {character2}",
        ),
        held_out=(
            "I would love to read a story with {character}.", "Make up a tale about {character} and {place}.",
            "Compose a story set in {place} about {character}.",
        ),
    ),
    Task(
        "poem", weight=4, median_tokens=140,
        training=(
            "Write a poem about {topic}.", "Compose a song about {character}.", "Write a sonnet on {topic}.",
            "Create a rhyme about {character}.", "Write a poem in which {character} dreams of {place}.",
            "Praise {topic} in verse.", "Sing about {character}.", "Describe {topic} in rhyme.",
        ),
        phrases=(
            "a poem on {topic}", "a ballad about {character}", "the lyrics of a song about {topic}",
            "a poem for {character}", "a love poem to {place}", "four stanzas on {topic}",
            "a sonnet about {character}",
        ),
        held_out=(
            "Please write some verses about {topic}.", "Can you make a poem out of {topic}?",
            "I want a song about {character}.",
        ),
    ),
    Task(
        "haiku", weight=2, median_tokens=26,
        training=(
            "Write a haiku about {topic}.", "Compose a haiku on {character}.",
            "Write a two-line rhyme about {topic}.", "Describe {topic} in a haiku.",
            "Rhyme two lines on {topic}.",
        ),
        phrases=(
            "a haiku on {topic}", "a couplet on {topic}", "a haiku about {place}",
            "a two-line poem about {character}",
        ),
        held_out=(
            "Make me a haiku about {topic}.", "A haiku about {character}, please.",
        ),
    ),
    Task(
        "essay", weight=5, median_tokens=420, sized=True,
        training=(
            "Write an essay about {topic}.", "Write a blog post on {topic}.",
            "Write an article about {topic}.", "Write a speech about {topic}.", "Draft a report on {topic}.",
            "Write a research proposal on {topic}.", "Write in favour of {topic}.",
            "Argue in writing that {topic} deserves more attention.", "Report on {topic}.",
        ),
        phrases=(
            "an essay on {topic}", "an article on {topic}", "a report about {topic}",
            "a blog post about {topic}", "a paper on {topic}", "a speech on {topic}",
            "a magazine feature about {topic}", "a white paper on {topic}", "a column about {topic}",
            "a term paper about {topic}",
        ),
        held_out=(
            "I need an essay on {topic}.", "Produce a long article that covers {topic}.",
            "Compose a blog post dealing with {topic}.",
        ),
    ),
    Task(
        "email", weight=5, median_tokens=170, sized=True,
        training=(
            "Write an email to {recipient}.", "Draft a letter to {recipient}.",
            "Compose a message to {recipient}.", "Help me write a polite note to {recipient}.",
            "Write to {recipient}.", "Reply to {recipient}.", "How should I write to {recipient}?",
            "Contact {recipient} for me.",
        ),
        phrases=(
            "an email to {recipient}", "a letter to {recipient}", "a note to {recipient}",
            "a message for {recipient}", "a reply to {recipient}", "a formal letter to {recipient}",
            "a polite request to {recipient}",
        ),
        held_out=(
            "I have to write an email to {recipient}. Draft it.", "Formulate a letter for {recipient}.",
        ),
    ),
    Task(
        "dialogue", weight=3, median_tokens=260,
        training=(
            "Write a dialogue between {character} and {character2}.",
            "Write a scene of a play with {character} in {place}.",
            "Pretend you are {character} and tell me about your day.", "Write an interview with {character}.",
            "Role-play: you are {character}. Introduce yourself.",
            "Imagine how {character} meets {character2}. Write down what they say.",
            "You are {character}, I am {character2}. Start talking.",
        ),
        phrases=(
            "a dialogue between {character} and {character2}",
            "a conversation of {character} with {character2} about {topic}", "a play with {character}",
            "a film scene with {character} in {place}", "an interview with {character} about {topic}",
            "a monologue of {character}", "a script in which {character} meets {character2}",
        ),
        held_out=(
            "Let {character} and {character2} have a conversation about {topic}.",
            "Act as {character} and describe your life in {place}.",
        ),
    ),
    Task(
        "code_function", weight=6, median_tokens=180,
        training=(
            "Write a {code_language} function that {code_task}.",
            "Implement code in {code_language} that {code_task}.",
            "How do I write a method in {code_language} that {code_task}?",
            "Create a {code_language} function which {code_task} and add tests.",
            "Show me {code_language} code that {code_task}.",
            "Implement a function in {code_language}. It {code_task}.",
            "Code it in {code_language}: a function that {code_task}.",
            "Solve in {code_language}: {code_task}.",
            "How would you implement something that {code_task} in {code_language}?",
        ),
        phrases=(
            "a function in {code_language} that {code_task}", "a {code_language} method that {code_task}",
            "{code_language} code that {code_task}", "a class in {code_language} that {code_task}",
            "a routine that {code_task} in {code_language}",
            "an algorithm in {code_language} that {code_task}",
            "a commented {code_language} function which {code_task}",
        ),
        held_out=(
            "I need a function in {code_language} that {code_task}.",
            "Give me {code_language} source code which {code_task}.",
        ),
    ),
    Task(
        "code_one_line", weight=3, median_tokens=50,
        training=(
            "Write a one-liner in {code_language} that {code_task}.",
            "Write a regular expression for {topic}.",
            "Write a SQL query that counts the rows about {topic}.",
            "Which shell command lists the files about {topic}?",
            "Which {code_language} expression {code_task}?",
            "What is the shortest {code_language} code that {code_task}?",
        ),
        phrases=(
            "a one-liner in {code_language} that {code_task}", "a regular expression for {topic}",
            "a shell command about {topic}", "an SQL query for a table about {topic}",
            "a single line of {code_language} that {code_task}",
        ),
        held_out=(
            "One line of {code_language} that {code_task}, please.",
            "What SQL query finds the newest row about {topic}?",
        ),
    ),
    Task(
        "code_program", weight=4, median_tokens=430,
        training=(
            "Write a {code_language} program: {code_program}.", "Build {code_program} in {code_language}.",
            "Develop {code_program} using {code_language} and explain the design.",
            "Write the full source code of {code_program} in {code_language}.",
            "Implement {code_program} in {code_language}.", "Code {code_program} with {code_language}.",
            "How do I build {code_program} in {code_language}? Show all files.",
        ),
        phrases=(
            "a {code_language} program for {code_program}",
            "an application in {code_language}: {code_program}",
            "the complete code of {code_program} in {code_language}",
            "a project in {code_language}: {code_program}",
            "a full implementation of {code_program} in {code_language}",
        ),
        held_out=(
            "I want to create {code_program} with {code_language}. Write all the code.",
            "Program {code_program} for me in {code_language}.",
        ),
    ),
)  # fmt: skip
