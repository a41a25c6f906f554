"""Words that fill the slots of the synthetic templates. All of our own writing."""

NARROW_TOPICS = (
    "the boiling point of water", "leap years", "the equator", "a haiku", "the hash sign", "photosynthesis",
    "the stapler", "compound interest", "tide tables", "a bicycle bell", "table salt", "the semicolon",
    "a magnetic compass", "shoe laces", "the siesta", "earwax", "a thermos flask", "the metronome",
    "baking soda", "the postage stamp", "a light switch", "time zones", "the zipper", "rainbows",
    "the full moon", "a paper clip", "the number zero", "lukewarm tea", "traffic lights", "echoes",
    "a sundial", "the comma", "fingerprints", "yeast", "the bar code", "a spirit level",
)  # fmt: skip

COMMON_TOPICS = (
    "solar panels", "public libraries", "sourdough bread", "long-distance running",
    "noise-cancelling headphones",
    "bee keeping", "container gardening", "chess openings", "jazz music", "remote work", "sleep habits",
    "electric cars", "coral reefs", "sign language", "household budgeting", "coffee roasting", "volcanoes",
    "street photography", "word processors", "night trains", "school uniforms", "urban foxes", "vaccines",
    "tea ceremonies", "wind turbines", "board games", "meditation", "job interviews", "bridges",
    "password managers", "recycling", "migratory birds", "film editing", "cheese making", "credit scores",
    "rock climbing", "weather forecasts", "puppet theatre", "allergies", "satellite navigation",
    "second-hand clothing", "podcasting", "lighthouses", "glaciers", "knitting", "map making",
    "fermented vegetables", "robot vacuum cleaners", "public speaking", "home insulation",
)  # fmt: skip

BROAD_TOPICS = (
    "the fall of the Roman Empire", "climate change", "the industrial revolution", "machine learning",
    "the history of astronomy", "global supply chains", "the human immune system", "the theory of evolution",
    "monetary policy", "urban planning", "the French Revolution", "quantum mechanics",
    "renewable energy policy", "the world's ocean currents", "modern architecture", "operating systems",
    "the philosophy of science", "the printing press and its consequences", "antibiotic resistance",
    "distributed databases", "the silk road", "plate tectonics", "behavioural economics", "world cinema",
    "the ethics of automation", "public health systems", "cryptography", "space exploration",
)  # fmt: skip

# Only in training prompts, so that those held out stay as they are.
NARROW_TOPICS_TRAINING = (
    "a doorbell", "the apostrophe", "sneezing", "the pencil sharpener", "a coat hanger", "goose bumps",
    "the hour glass", "a bus ticket", "the letter Q", "morning dew", "a tea bag", "snow flakes",
    "the corkscrew", "pi", "a rubber band", "the abacus", "hiccups", "a fuse", "Friday the 13th", "a siren",
)  # fmt: skip

COMMON_TOPICS_TRAINING = (
    "horse riding", "3D printing", "ant colonies", "vegan cooking", "yoga", "local newspapers", "drones",
    "smart watches", "river rafting", "kindergartens", "tattoos", "cinema tickets", "dental care",
    "time management", "stamp collecting", "orchids", "saunas", "Excel macros", "trade fairs", "swimming",
    "online dating", "hospital food", "car sharing", "origami", "hedgehogs", "mobile games", "snoring",
    "pension funds", "tap dancing", "sushi", "camping", "wedding speeches", "customer service", "dark matter",
)  # fmt: skip

BROAD_TOPICS_TRAINING = (
    "the cold war", "artificial intelligence", "globalisation", "the history of medicine", "world religions",
    "the nervous system", "international law", "thermodynamics", "ancient Egypt", "the European Union",
    "human rights", "deep learning", "migration", "the water cycle and climate", "linguistics",
    "the American civil war", "cyber security", "general relativity", "capitalism", "computer networks",
)  # fmt: skip

CHARACTERS = (
    "a retired sea captain", "two rival bakers", "a lost weather balloon", "the last librarian in town",
    "a shy locksmith", "an old radio that answers back", "a boy who collects shadows", "a lighthouse cat",
    "three sisters and a broken clock", "a train that is never late", "a gardener on Mars",
    "a forgetful wizard",
    "the mayor of an empty village", "a violin without strings", "a night bus driver",
    "a cartographer of dreams",
    "an apprentice glassblower", "a robot who learns to bake", "a fox with a debt",
    "a detective afraid of dogs",
)  # fmt: skip

PLACES = (
    "Lisbon", "Kyoto", "the Scottish Highlands", "Buenos Aires", "Montreal", "Cape Town", "Vienna", "Hanoi",
    "Reykjavik", "Mexico City", "the Dolomites", "Istanbul", "New Zealand's South Island", "Marrakesh",
    "Bergen", "Seoul", "Naples", "the Baltic coast", "Tbilisi", "Nairobi",
)  # fmt: skip

LANGUAGES = ("French", "German", "Spanish", "Italian", "Portuguese", "Polish", "Dutch", "Turkish", "Swedish")

CODE_LANGUAGES = ("Python", "JavaScript", "Go", "Rust", "Java", "C++", "TypeScript", "Ruby", "C#", "Kotlin")

CODE_TASKS = (
    "reverses a linked list", "checks whether a string is a palindrome", "merges two sorted arrays",
    "counts the words in a text", "finds the longest common prefix", "validates an e-mail address",
    "computes the nth Fibonacci number", "flattens a nested list", "removes duplicates and keeps the order",
    "parses a date in ISO format", "rotates a matrix by 90 degrees", "groups anagrams together",
    "retries a call with exponential back-off", "finds the median of a stream", "converts Roman numerals",
    "sorts a dictionary by value", "computes a moving average", "finds the shortest path in a grid",
    "splits a list into chunks", "checks that brackets are balanced", "formats bytes for people to read",
)  # fmt: skip

CODE_PROGRAMS = (
    "a to-do list with a database", "a chat server with rooms", "a URL shortener", "a snake game",
    "an expense tracker with charts", "a weather dashboard", "a blog engine with comments",
    "a library loan system", "a file synchroniser", "a web crawler that respects robots.txt",
    "an inventory system for a small shop", "a tic-tac-toe game with a computer opponent",
    "a photo gallery with tags", "a parking garage simulator", "a flashcard trainer", "a log analyser",
)  # fmt: skip

FACTS = (
    "invented the telephone", "painted the Mona Lisa", "wrote Don Quixote", "discovered penicillin",
    "was the first person to reach the South Pole", "composed the Four Seasons", "designed the Eiffel Tower",
    "first climbed Mount Everest", "founded the Red Cross", "proved Fermat's last theorem",
    "discovered radioactivity", "wrote the Odyssey", "invented the steam engine", "mapped the human genome",
    "first crossed the Atlantic by aeroplane", "sculpted David", "discovered the structure of DNA",
    "invented dynamite", "wrote War and Peace", "first measured the speed of light",
)  # fmt: skip

COUNTRIES = (
    "France", "Mongolia", "Peru", "Kenya", "Norway", "Vietnam", "Canada", "Jordan", "Uruguay", "Hungary",
    "Thailand", "Morocco", "Iceland", "Chile", "Nepal", "Ghana", "Estonia", "Cuba", "Oman", "Fiji",
)  # fmt: skip

YES_NO_QUESTIONS = (
    "is a tomato a fruit", "can penguins fly", "is 91 a prime number", "do fish sleep",
    "is the Nile longer than the Danube", "can you see the Great Wall from the Moon", "is glass a liquid",
    "do plants breathe at night", "is Sydney the capital of Australia", "does sound travel in a vacuum",
    "are bats blind", "is light faster than sound", "can sharks get cancer", "is lead heavier than gold",
    "was Napoleon taller than average for his time", "do all birds lay eggs", "is Pluto a planet",
    "can honey spoil", "do camels store water in their humps", "is zero an even number",
    "does hot water freeze faster than cold water", "are bananas berries", "do spiders have six legs",
)  # fmt: skip

RECIPIENTS = (
    "my landlord about a broken heater", "a customer whose parcel was lost",
    "the team about a new holiday rule",
    "a professor to ask for a deadline extension", "a supplier to ask for a lower price",
    "my neighbours about a street party", "a hiring manager after an interview",
    "the school about my daughter's absence", "a client to announce a delay", "the bank about a wrong charge",
    "an old friend I have not seen for years", "the city council about a dangerous crossing",
    "subscribers about a change of price", "a colleague to thank her for her help",
)  # fmt: skip

SENTENCES = (
    "The ferry left the harbour an hour late because of thick fog.",
    "Our new kettle boils a litre of water in under two minutes.",
    "She found the missing letter inside an old cookery book.",
    "The committee will publish its report before the end of the month.",
    "Sales in the northern region rose by eleven percent last quarter.",
    "Nobody had told the drivers that the bridge was closed.",
    "The museum keeps its oldest maps in a dark and dry cellar.",
    "A small dog waited every evening in front of the bakery.",
    "The engineers replaced the pump, yet the leak came back.",
    "Most visitors arrive by train and stay for a single night.",
    "He promised to call back, but the phone stayed silent.",
    "The soup was cold, the waiter rude and the bill far too high.",
    "Rain is expected in the west, while the east stays sunny.",
    "Her first novel sold poorly and is now taught in schools.",
    "The battery lasts two days if the screen is kept dim.",
    "Farmers in the valley harvest olives from October to January.",
    "The update removed the button that everyone used most.",
    "Their apartment overlooks a courtyard with three lemon trees.",
    "The court ruled that the contract had never been valid.",
    "After the storm, volunteers cleared the beach of plastic.",
    "The choir rehearses on Thursdays in the old fire station.",
    "I bought these boots in March and the sole is already coming off.",
    "The clinic offers free eye tests to anyone over sixty.",
    "A faulty sensor caused the alarm to ring all night.",
    "The village lost its last shop when the road was moved.",
    "Delivery was quick, the packaging neat and the price fair.",
    "Scientists drilled two kilometres into the ice sheet.",
    "The goalkeeper saved a penalty in the final minute.",
    "Every guest receives a hand-written note and a map of the town.",
    "The factory will switch to three shifts from next spring.",
    "An anonymous donor paid for the repair of the church roof.",
    "The app crashed twice while I was trying to pay.",
    "Wolves have returned to the forest after a hundred years.",
    "The director cut the scene that the critics liked best.",
    "Our guide knew the name of every mountain on the horizon.",
    "The train to the airport runs every fifteen minutes.",
    "They painted the kitchen yellow and regretted it at once.",
    "The lecture explained how tides are used to make electricity.",
    "Water levels in the reservoir are the lowest since records began.",
    "My grandmother kept bees and sold the honey at the market.",
    "The company apologised and refunded all tickets.",
    "He repaired the clock with a piece of wire and some luck.",
    "The street was so narrow that the fire engine got stuck.",
    "Prices of timber doubled within a single year.",
    "The orchestra played the last movement much too fast.",
    "A tunnel under the river will open to cyclists in May.",
    "The hotel looked better in the pictures than it is.",
    "Two students built a telescope from parts found in a skip.",
)  # fmt: skip
