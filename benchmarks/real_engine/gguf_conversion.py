"""A GGUF file -> a folder of safetensors, tokenizer and chat template, which vLLM serves.

    python -m benchmarks.real_engine.gguf_conversion FILE FOLDER

Runs in vLLM's environment, with gguf and accelerate. Fails unless the model then knows the capital of France:
a tokenizer that is wrong in a detail still gives text.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from benchmarks.real_engine.gguf_tokenizer import byte_level_bpe
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

END_OF_TURN = "<|im_end|>"
QUESTION, ANSWER = "What is the capital of France?", "Paris"


def convert(file: Path, folder: Path) -> str:
    """Writes the folder and returns the model's answer to `QUESTION`.

    Raises:
        ValueError: the answer is wrong.
    """
    tokenizer = read_tokenizer(file)
    model = read_model(file)
    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    for config in (model.config, model.generation_config):
        config.eos_token_id = end
        config.pad_token_id = end
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    answer = ask(model, tokenizer, QUESTION)
    if ANSWER not in answer:
        raise ValueError(f"{QUESTION} {answer!r}: the tokenizer is not the model's")
    return answer


# Untyped: vLLM's environment has another transformers than the one that types are checked with.
def read_model(file: Path) -> Any:
    """The weights as float32."""
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32
    )
    config = loaded.config
    # The weights are float32 by now, but a model that says it is quantised cannot be saved.
    del config.quantization_config
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.load_state_dict(loaded.state_dict())
    return model.eval()


def read_tokenizer(file: Path) -> Any:
    """The tokenizer with its chat template."""
    fields = GGUFReader(file).fields
    tokens, merges, types = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=byte_level_bpe(tokens, merges, types),
        bos_token=tokens[fields["tokenizer.ggml.bos_token_id"].contents()],
        eos_token=END_OF_TURN,
        pad_token=END_OF_TURN,
        unk_token=tokens[fields["tokenizer.ggml.unknown_token_id"].contents()],
        chat_template=fields["tokenizer.chat_template"].contents(),
        clean_up_tokenization_spaces=False,
    )


def ask(model: Any, tokenizer: Any, question: str) -> str:
    """The most likely answer."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**inputs, do_sample=False, max_new_tokens=40)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


if __name__ == "__main__":
    print(convert(Path(sys.argv[1]), Path(sys.argv[2])))
