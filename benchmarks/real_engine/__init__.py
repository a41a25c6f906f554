"""RankServe in front of a real LLM, SmolLM2-135M-Instruct on vLLM: `python -m benchmarks.real_engine`."""
