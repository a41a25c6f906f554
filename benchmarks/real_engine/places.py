"""Where everything of these measurements is kept."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "out" / "real-engine"


@dataclass(slots=True, frozen=True)
class Places:
    """Attributes:
    output: folder of all that the commands leave.
    environment: vLLM's virtual environment.
    """

    output: Path
    environment: Path

    @property
    def python(self) -> Path:
        """Of vLLM's environment."""
        return self.environment / "bin" / "python"

    @property
    def model(self) -> Path:
        """The LLM, a folder that vLLM serves."""
        return self.output / "model"

    @property
    def engine_log(self) -> Path:
        """What vLLM said."""
        return self.output / "vllm.log"

    @property
    def lengths(self) -> Path:
        """Prompts with the lengths of the LLM's answers; several answers to those that are held out."""
        return self.output / "lengths.jsonl.gz"

    @property
    def run(self) -> Path:
        """Of the ranker's training."""
        return self.output / "run"

    @property
    def models(self) -> Path:
        """The repository that the ranker is exported to."""
        return self.output / "models"

    @property
    def comparison(self) -> Path:
        """Runs of policies on the LLM."""
        return self.output / "comparison"

    @property
    def facts(self) -> Path:
        """The figures that were measured."""
        return self.output / "facts.json"
