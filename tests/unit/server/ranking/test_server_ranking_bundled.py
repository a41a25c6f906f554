"""The version that ships with the package."""

from rankserve.server.ranking.ranker import Ranker, RankerSettings
from rankserve.server.ranking.repository import ModelRepository, bundled_repository


async def test_the_bundled_version_tells_short_answers_from_long_ones() -> None:
    repository = ModelRepository(bundled_repository())
    assert [entry.problem for entry in repository.list_versions()] == [""], "the package ships one version"
    ranker = Ranker(repository, RankerSettings(timeout_ms=60_000))
    await ranker.activate(await ranker.load(), move_pointer=False)
    brief = await ranker.score("Answer with yes or no: is the sky blue?")
    lengthy = await ranker.score("Write a detailed essay of 2000 words on the history of the steam engine.")
    await ranker.aclose()
    assert brief.ranker_version == lengthy.ranker_version != ""
    assert brief.score > lengthy.score
    assert brief.expected_tokens_p50 is not None
    assert lengthy.expected_tokens_p50 is not None
    assert brief.expected_tokens_p50 < lengthy.expected_tokens_p50
