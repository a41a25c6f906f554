"""What a killed exporter leaves is pruned, what a living one works on is not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.ranker_folder import write_version

from rankserve.records.pruning import plan_pruning, prune
from rankserve.records.ranker_version import MODEL
from rankserve.records.staging import staging_folder

STAGE = (
    "import sys\n"
    "from pathlib import Path\n"
    "from rankserve.records.staging import staging_folder\n"
    "with staging_folder(Path(sys.argv[1]), 'r') as folder:\n"
    "    (folder / 'model.onnx').write_bytes(b'model')\n"
    "    print(folder, flush=True)\n"
    "    sys.stdin.read()\n"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_version(tmp_path / "r" / "1")
    return tmp_path


def test_the_folder_of_a_killed_exporter_is_pruned_and_of_a_living_one_is_not(repository: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STAGE, str(repository)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert prune(repository) == plan_pruning(repository)
        assert (folder / MODEL).is_file()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    plan = plan_pruning(repository)
    assert (plan.removed, plan.freed_bytes) == ((), len(b"model"))
    assert folder.is_dir()
    assert prune(repository) == plan
    assert not folder.exists()
    assert (repository / "r" / "1").is_dir()


def test_a_failure_leaves_no_folder_and_a_version_keeps_its(repository: Path) -> None:
    with pytest.raises(OSError, match="disk full"), staging_folder(repository, "r") as folder:
        raise OSError("disk full")
    assert not folder.exists()
    with staging_folder(repository, "r") as folder:
        folder.rename(repository / "r" / "2")
    prune(repository)
    assert (repository / "r" / "2").is_dir()


def test_folders_of_others_are_left_alone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in (".git", ".cache", ".r-12345"):
        (repository / name).mkdir()
    (repository / ".mine-abcdefgh").mkdir()
    (repository / ".mine-abcdefgh" / "diary.txt").touch()
    (repository / ".file-abcdefgh").touch()
    (repository / ".link-abcdefgh").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    before = sorted(repository.iterdir())
    prune(repository)
    assert sorted({*before, repository / ".lock"}) == sorted(repository.iterdir())
