"""A server process in front of LLMs that are processes too, asked by OpenAI's own client."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from support.fake_process import FakeProcess
from support.server_process import Connection, StartServer

from rankserve.server.engines.fake import token_numbers

FAST = ("--ttft-s", "0", "--itl-s", "0.001", "--mean-output-tokens", "20")


@pytest.fixture
def llama() -> Iterator[FakeProcess]:
    with FakeProcess("--model", "llama", *FAST) as engine:
        yield engine


@pytest.fixture
def qwen() -> Iterator[FakeProcess]:
    with FakeProcess("--model", "qwen", "--api-key", "qwen-key", *FAST) as engine:
        yield engine


async def test_openai_s_client_streams_from_the_llm_that_it_names(
    start_server: StartServer, llama: FakeProcess, qwen: FakeProcess, tmp_path: Path
) -> None:
    (tmp_path / "qwen.key").write_text("qwen-key\n")
    file = tmp_path / "endpoints.toml"
    file.write_text(
        f'[[endpoint]]\nurl = "{llama.base_url}"\n'
        f'[[endpoint]]\nurl = "{qwen.base_url}"\napi_key_file = "qwen.key"\n'
    )
    server = start_server(
        *("--engine", "openai", "--engine-file", str(file), "--http-port", "0", "--operations-port", "0")
    )
    client = openai.AsyncOpenAI(base_url=f"http://{server.listening['http_address']}/v1", api_key="none")
    served = {model.id async for model in client.models.list()}
    assert {"llama", "qwen"} <= served
    for model in ("llama", "qwen"):
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "heliotrope one two"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        text, usage = "", None
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        assert token_numbers(text) == list(range(len(text.split())))
        assert usage is not None
        # One more for the end.
        assert usage.completion_tokens == len(text.split()) + 1
        assert usage.prompt_tokens >= 3
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="gpt", prompt="heliotrope")
    await client.close()
    async with Connection(server.address) as connection:
        stats = await connection.stats()
    assert sorted((each.model, each.circuit) for each in stats.endpoints) == [
        ("llama", "closed"),
        ("qwen", "closed"),
    ]
    scrape = httpx2.get(f"http://{server.listening['operations_address']}/metrics", trust_env=False).text
    for engine, model in ((llama, "llama"), (qwen, "qwen")):
        labels = f'{{model="{model}",url="{engine.base_url}"}}'
        assert f"rankserve_endpoint_serves{labels} 1.0" in scrape
        assert f"rankserve_endpoint_requests{labels} 0.0" in scrape
        assert f"rankserve_endpoint_limit{labels}" in scrape
    assert "qwen-key" not in server.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), "engine openai needs --engine-url"),
        (("--engine-url", "ftp://nowhere"), "must be like http://127.0.0.1:8000/v1"),
        (("--engine-url", "http://127.0.0.1:9/v1"), "nobody answers at http://127.0.0.1:9/v1"),
        (("--engine-file", "none.toml"), "none.toml: No such file"),
        (
            ("--engine-url", "http://127.0.0.1:9/v1", "--engine-model", "m", "--preemption", "recompute"),
            "cannot preempt",
        ),
    ],
)
def test_engines_that_cannot_be_end_the_start_and_say_why(
    start_server: StartServer, options: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(RuntimeError, match="status 2") as raised:
        start_server("--engine", "openai", *options)
    assert problem in str(raised.value)
    assert "Traceback" not in str(raised.value)


async def test_a_named_model_lets_the_server_start_before_its_llm(start_server: StartServer) -> None:
    engine = FakeProcess("--model", "llama", *FAST)
    with engine:
        url = engine.base_url
    server = start_server(
        "--engine", "openai", "--engine-url", url, "--engine-model", "llama", "--http-port", "0"
    )
    client = openai.AsyncOpenAI(base_url=f"http://{server.listening['http_address']}/v1", api_key="none")
    with engine:
        completion = await client.completions.create(model="llama", prompt="heliotrope", max_tokens=5)
    assert completion.choices[0].text
    await client.close()
