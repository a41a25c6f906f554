"""Real LLMs behind the OpenAI API: vLLM, SGLang, llama.cpp and others."""
