import sys
from pathlib import Path

# `benchmarks` is run from the project's root and not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
