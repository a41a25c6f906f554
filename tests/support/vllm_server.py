"""A real vLLM on loopback, with a model of random weights.

`VLLM_PYTHON` names the interpreter of an environment that has vLLM and what `rankserve[vllm]` needs;
`VLLM_PYTHONPATH` may add folders where it finds the latter.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

PYTHON = os.environ.get("VLLM_PYTHON", "")
MODEL = "tiny"
_REPOSITORY = Path(__file__).resolve().parents[2]
_STARTS_WITHIN_S = 400.0

_MAKE_MODEL = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast
special = ["<pad>", "</s>", "<unk>"]
vocabulary = special + sorted(pre_tokenizers.ByteLevel.alphabet())
tokenizer = Tokenizer(models.BPE({token: n for n, token in enumerate(vocabulary)}, [], unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
names = dict(pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}"
fast.save_pretrained(sys.argv[1])
config = OPTConfig(vocab_size=len(vocabulary), hidden_size=128, ffn_dim=256, num_hidden_layers=2,
                   num_attention_heads=2, word_embed_proj_dim=128, max_position_embeddings=32768,
                   pad_token_id=0, bos_token_id=1, eos_token_id=1)
OPTForCausalLM(config).save_pretrained(sys.argv[1])
"""

# vLLM's engine waits for work by yielding its turn over and over, which stalls everybody on few cores.
_SITECUSTOMIZE = """
import os, time
os.sched_yield = lambda: time.sleep(5e-5)
"""


def make_model(folder: Path) -> Path:
    """Writes a tiny OPT whose tokens are bytes."""
    command = [PYTHON, "-c", _MAKE_MODEL, str(folder)]
    subprocess.run(command, check=True, capture_output=True, env=_environment(folder.parent, {}))
    return folder


@dataclass(slots=True, frozen=True)
class VllmServer:
    """Attributes:
    url: of the server.
    log: the file that holds what it printed.
    process: it.
    """

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def gauge(self, name: str) -> float:
        """A figure of /metrics."""
        with urlopen(f"{self.url}/metrics") as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:{name}{{"))

    def printed(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def vllm_process(
    model: Path, folder: Path, *arguments: str, max_sequences: int = 2, port: int = 0, **variables: str
) -> Iterator[VllmServer]:
    """Starts vLLM without waiting for it.

    Args:
        model: folder of `make_model`.
        folder: for its log, and what it needs at start-up.
        arguments: of its command line, beside the usual ones.
        max_sequences: of a batch.
        port: where it listens; 0 for any that is free.
        variables: of its environment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", port)) as free:
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-num-seqs", str(max_sequences), "--max-model-len", "4096", "--dtype", "float32"]
    command += ["--enforce-eager", *arguments]
    log = folder / "vllm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(folder, variables),
            start_new_session=True,
        )
    try:
        yield VllmServer(f"http://127.0.0.1:{port}", log, process)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        # The engine is a process of its own, in the same group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def running_vllm(
    model: Path, folder: Path, *arguments: str, max_sequences: int = 2, port: int = 0, **variables: str
) -> Iterator[VllmServer]:
    """The same, once it answers."""
    with vllm_process(
        model, folder, *arguments, max_sequences=max_sequences, port=port, **variables
    ) as server:
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while time.monotonic() < deadline and server.process.poll() is None:
            if _answers(server.url):
                yield server
                return
            time.sleep(0.5)
        raise RuntimeError(f"vLLM did not start:\n{server.printed()[-4000:]}")


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health") as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    paths = [folder, _REPOSITORY / "server", _REPOSITORY / "proto"]
    more = os.environ.get("VLLM_PYTHONPATH", "")
    python_path = os.pathsep.join([*map(str, paths), *filter(None, [more])])
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("RANKSERVE_")},
        "PYTHONPATH": python_path,
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # Not all of them on the same core.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        **variables,
    }
