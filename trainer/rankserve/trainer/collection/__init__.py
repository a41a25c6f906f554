"""Output lengths from a real LLM: prompts sent to an OpenAI-compatible endpoint, several samples each.

No torch here: what collects need not train.
"""
