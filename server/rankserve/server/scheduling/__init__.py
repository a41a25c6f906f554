"""The scheduler: pure, no I/O, no clock, no asyncio. Time comes in as an argument, in seconds."""
