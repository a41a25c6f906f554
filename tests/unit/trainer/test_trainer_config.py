from pathlib import Path

import pytest

from rankserve.trainer.config import ConfigError, FileSource, load_config

RECIPES = Path(__file__).resolve().parents[3] / "trainer" / "recipes"
MINIMAL = 'name = "x"\n[[sources]]\nkind = "synthetic"\nname = "s"\nlicence = "MIT"\ncount = 9\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "train.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(recipe: Path) -> None:
    assert load_config(recipe).name == recipe.stem


def test_the_shipped_ranker_is_trained_on_permissive_data_only() -> None:
    config = load_config(RECIPES / "bundled.toml")
    assert {source.licence for source in config.sources} <= {"Apache-2.0", "MIT"}
    assert not [source.name for source in config.sources if "alpaca" in source.model_dump_json().lower()]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = MINIMAL.replace('"synthetic"', '"file"').replace("count = 9", 'path = "../data/a.jsonl"')
    config = load_config(write(tmp_path, text + '[model]\nbackbone = "./checkpoint"\n'))
    [source] = config.sources
    assert isinstance(source, FileSource)
    assert source.path == tmp_path.parent / "data" / "a.jsonl"
    assert config.model.backbone == str(tmp_path / "checkpoint")


def test_the_seed_can_be_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 4\n" + MINIMAL)
    assert load_config(path).seed == 4
    assert load_config(path, seed=9).seed == 9


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (MINIMAL + "colour = 1\n", r"sources\[0\].colour"),
        ("colour = 1\n" + MINIMAL, "colour"),
        (MINIMAL.replace("count = 9", "count = 0"), r"sources\[0\].count"),
        (MINIMAL.replace("count = 9\n", ""), r"sources\[0\].count"),
        (MINIMAL.replace('"synthetic"', '"ftp"'), r"sources\[0\]"),
        (MINIMAL + "[optimisation]\nlist_size = 1\n", "optimisation.list_size"),
        (MINIMAL + "[model]\nmax_length = 1\n", "model.max_length"),
        (MINIMAL + '[model]\nbackbone = "gpt"\n[model.mini]\nlayers = 2\n', "model.mini"),
        (MINIMAL + "[model.mini]\nhidden_size = 10\nheads = 4\n", "hidden_size"),
        ("split = [0.5, 0.1, 0.1]\n" + MINIMAL, "split"),
        (MINIMAL + MINIMAL.split("\n", 1)[1], "sources: each needs a name"),
        ('name = "x"\nsources = []\n', "sources"),
        (MINIMAL.replace('name = "x"', 'name = "../x"'), "name"),
        ("name =", "not valid TOML"),
    ],
)
def test_an_error_names_the_file_and_the_key(text: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"train\.toml: .*{key}"):
        load_config(write(tmp_path, text))
