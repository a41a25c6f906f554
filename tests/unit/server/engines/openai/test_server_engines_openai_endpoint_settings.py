"""Which endpoints there are: the options and the file."""

from pathlib import Path

import pytest

from rankserve.server.engines.openai.endpoint_settings import (
    EndpointError,
    EndpointSettings,
    endpoints_of,
    read_endpoints,
)


def test_several_urls_with_commas_between_share_the_other_settings() -> None:
    found = endpoints_of(" http://a:1/v1/ , https://b/v1,http://a:1/v1", model="m", max_sequences=4)
    assert [(e.url, e.model, e.max_sequences) for e in found][:2] == [
        ("http://a:1/v1", "m", 4),
        ("https://b/v1", "m", 4),
    ]


@pytest.mark.parametrize(
    "url", ["a:1", "ftp://a/v1", "http://", "http://u:p@a/v1", "http://a/v1?key=1", "://"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match="--engine-url"):
        endpoints_of(url)


def test_a_file_says_it_for_each(tmp_path: Path) -> None:
    path = tmp_path / "pool.toml"
    (tmp_path / "one.key").write_text("secret-key\n")
    path.write_text(
        '[[endpoint]]\nurl = "http://a/v1"\nmodel = "llama"\nweight = 2.0\nmax_sequences = 64\n'
        'dialect = "sglang"\npriority = "higher-first"\napi_key_file = "one.key"\n'
        '[[endpoint]]\nurl = "http://b/v1"\n'
    )
    first, second = read_endpoints(path)
    assert (first.model, first.weight, first.max_sequences) == ("llama", 2.0, 64)
    assert (first.dialect, first.priority, first.api_key()) == ("sglang", "higher-first", "secret-key")
    assert second == EndpointSettings(url="http://b/v1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "endpoint: Field required"),
        ("endpoint = []", "endpoint: List should have at least 1 item"),
        ("[[endpoint]]", "endpoint.0.url: Field required"),
        ('[[endpoint]]\nurl = "http://a/v1"\nwait = 2', "endpoint.0.wait: Extra inputs"),
        ('[[endpoint]]\nurl = "http://a/v1"\nweight = 0', "endpoint.0.weight: Input should be greater"),
        ('[[endpoint]]\nurl = "http://a/v1"\nweight = nan', "endpoint.0.weight: Input should be a finite"),
        ('[[endpoint]]\nurl = "http://a/v1"\n[[endpoint]]\nurl = "http://a/v1/"', "there twice: http://a/v1"),
        ("[[endpoint", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_says_where_and_why(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "pool.toml"
    path.write_text(text)
    with pytest.raises(EndpointError) as raised:
        read_endpoints(path)
    assert str(path) in str(raised.value)
    assert problem in str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="No such file"):
        read_endpoints(tmp_path / "none.toml")


@pytest.mark.parametrize("content", ["", "two words", "caf\xe9", "two\nlines"])
def test_a_key_file_that_holds_none_is_refused_without_repeating_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(EndpointError) as raised:
        EndpointSettings(url="http://a/v1", api_key_file=path).api_key()
    assert not content or content not in str(raised.value)
