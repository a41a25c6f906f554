"""A ranker version as an ONNX Runtime session: prompts in, scores out. Blocking; `MicroBatcher` calls it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import structlog

from rankserve.records.ranker_version import MODEL, TOKENIZER, RankerManifest
from rankserve.server.ranking.device_session import OUTPUT, execution
from rankserve.server.ranking.errors import ProviderUnavailableError, RankerVersionError, ScoringError
from rankserve.server.ranking.packing import pack_by_length
from rankserve.server.ranking.tokenization import PromptTokenizer

CPU_PROVIDER = "CPUExecutionProvider"
WARM_UP_PROMPTS = ("Explain in one sentence why the sky is blue.", "Write a long story about a lighthouse.")
INPUTS = {"input_ids", "attention_mask"}

log = structlog.get_logger(__name__)


class OnnxScorer:
    """Scores prompts with a version's `model.onnx` and `tokenizer.json`.

    Not for concurrent use: one thread calls `score`.

    Args:
        folder: the version's folder.
        manifest: its manifest, checked.
        providers: ONNX Runtime execution providers, the preferred one first.
        threads: threads that one run may use.
        require_provider: whether a provider that ONNX Runtime does not give is an error. It is logged
            otherwise; ONNX Runtime itself falls back to the CPU silently.

    Raises:
        RankerVersionError: the model or tokenizer cannot be loaded, or fails on a prompt of the longest
            length the manifest promises.
        ProviderUnavailableError: see `require_provider`.
    """

    def __init__(
        self,
        folder: Path,
        manifest: RankerManifest,
        *,
        providers: Sequence[str] = (CPU_PROVIDER,),
        threads: int = 1,
        require_provider: bool = False,
    ) -> None:
        self._pad_token_id = manifest.pad_token_id
        try:
            self._tokenizer = PromptTokenizer(
                folder / TOKENIZER, max_length=manifest.max_length, truncation_side=manifest.truncation_side
            )
        except ValueError as error:
            raise RankerVersionError(f"{folder}: {error}") from error
        self._session = _open_session(folder / MODEL, providers, threads)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        _check_providers(folder, providers, self.providers, required=require_provider)
        # Padded tokens that a run saved is worth, and where larger runs gain no more: on one core small runs
        # multiply slowly (docs/decisions/0008 compares allowances); launching a GPU's kernels costs as much
        # as thousands of tokens.
        self.on_cpu = self.providers[0] == CPU_PROVIDER
        self._execute = execution(
            self._session,
            self.providers[0],
            max_length=manifest.max_length,
            pad_token_id=manifest.pad_token_id,
        )
        self._padding_allowance, self._max_tokens = (32, 1024) if self.on_cpu else (2048, 16384)
        self._check_signature(folder)
        self._warm_up(folder, manifest.max_length)

    def score(self, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Scores of the prompts, shape [len(prompts)]; higher = shorter answer expected.

        Raises:
            ScoringError: a prompt has no tokens, a score is not finite, or the model failed. No score of
                the batch is known then.
        """
        if not prompts:
            return np.empty(0, dtype=np.float64)
        try:
            ids = self._tokenizer.encode(prompts)
        except Exception as error:  # tokenizers raises bare Exception
            raise ScoringError(f"the tokenizer failed ({type(error).__name__})") from error
        if not all(ids):
            raise ScoringError("a prompt has no tokens")
        scores = np.empty(len(prompts), dtype=np.float64)
        runs = pack_by_length(
            [len(row) for row in ids], max_tokens=self._max_tokens, padding_allowance=self._padding_allowance
        )
        for run in runs:
            scores[run] = self._run([ids[index] for index in run])
        if not np.isfinite(scores).all():
            raise ScoringError("the model gave a score that is not finite")
        return scores

    def _run(self, rows: list[list[int]]) -> npt.NDArray[np.float64]:
        shape = (len(rows), max(len(row) for row in rows))
        input_ids = np.full(shape, self._pad_token_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = 1
        try:
            output = self._execute(input_ids, attention_mask)
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise ScoringError(f"the model failed ({error})") from error
        if output.shape != (len(rows),):
            raise ScoringError(f"the model gave scores of shape {output.shape} for {len(rows)} prompts")
        scores: npt.NDArray[np.float64] = output.astype(np.float64)
        return scores

    def _check_signature(self, folder: Path) -> None:
        inputs = {tensor.name for tensor in self._session.get_inputs()}
        outputs = {tensor.name for tensor in self._session.get_outputs()}
        if inputs != INPUTS or OUTPUT not in outputs:
            raise RankerVersionError(
                f"{folder}: {MODEL} has inputs {sorted(inputs)} and outputs {sorted(outputs)}; "
                f"a ranker takes {sorted(INPUTS)} and gives {OUTPUT!r}"
            )

    def _warm_up(self, folder: Path, max_length: int) -> None:
        try:
            self.score(WARM_UP_PROMPTS)
            token = self._tokenizer.encode(WARM_UP_PROMPTS[:1])[0][-1]
            longest = self._run([[token] * max_length])
        except ScoringError as error:
            raise RankerVersionError(
                f"{folder}: fails on prompts of up to its max_length {max_length}: {error}"
            ) from error
        if not np.isfinite(longest).all():
            raise RankerVersionError(f"{folder}: its score at max_length {max_length} is not finite")


def _open_session(model: Path, providers: Sequence[str], threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = set(onnxruntime.get_available_providers())
    # ONNX Runtime warns on stderr about a name it does not know; ours is the better message.
    known = [provider for provider in providers if provider in available]
    # Patterns are kept for every shape ever seen (3 KiB each), and on the CPU almost every shape is new.
    options.enable_mem_pattern = known[:1] not in ([], [CPU_PROVIDER])
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=known or [CPU_PROVIDER])
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        raise RankerVersionError(f"{model.parent}: {model.name} cannot be loaded ({error})") from error


def _check_providers(folder: Path, asked: Sequence[str], obtained: Sequence[str], *, required: bool) -> None:
    missing = [provider for provider in asked if provider not in obtained]
    if not missing:
        return
    if required:
        raise ProviderUnavailableError(
            f"{folder}: ONNX Runtime gave {list(obtained)}, not {missing}; install its driver and libraries, "
            "or do not ask for it"
        )
    log.warning("ranker_provider_unavailable", missing=missing, using=list(obtained))
