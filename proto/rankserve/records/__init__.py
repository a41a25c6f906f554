"""Records that the parts of RankServe exchange as files: prompts, workloads, results, ranker versions.

Standard library only, so that every part can import it.
"""
