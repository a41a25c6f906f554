"""Parameters of OpenAI, vLLM and SGLang that would change the answer and that no engine here is told of.

Each is refused, unless its value is one that asks for nothing. All other unknown parameters are ignored: they
change what an answer costs or where it is kept, not what it says.
"""

from typing import Any

from rankserve.server.errors import InvalidRequest

# Beside null, which always asks for nothing.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    # OpenAI
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (),
    "logit_bias": ({},),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    # vLLM and SGLang
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "top_k": (0, -1),
    "min_p": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "length_penalty": (1, 1.0),
    "use_beam_search": (False,),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "bad_words": ([],),
    "allowed_token_ids": (),
    "logits_processors": ([],),
    "truncate_prompt_tokens": (),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "regex": (),
    "ebnf": (),
    "json_schema": (),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "lora_path": (),
}


def refuse_unsupported(body: dict[str, Any]) -> None:
    """Raises InvalidRequest, which names the first parameter that cannot be honoured."""
    for name in _HARMLESS.keys() & body.keys():
        value = body[name]
        if value is None or any(type(value) is type(same) and value == same for same in _HARMLESS[name]):
            continue
        raise InvalidRequest(name, "is not supported by this server; leave it out")
