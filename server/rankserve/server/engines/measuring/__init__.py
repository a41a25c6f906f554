"""Step times of a running engine, measured from outside through the OpenAI API."""
