from pathlib import Path

import pytest

from rankserve.trainer.config import ConfigError, FileSource, ModelConfig, TransplantConfig, load_config
from rankserve.trainer.data.sources import read_source
from rankserve.trainer.recipes import find_config, recipe_names

MINIMAL = 'name = "x"\n[[sources]]\nkind = "synthetic"\nname = "s"\nlicence = "MIT"\ncount = 9\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "train.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_goes_before_a_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "synthetic").mkdir()
    assert load_config(find_config("synthetic")).name == "synthetic"
    write(tmp_path, MINIMAL).rename(tmp_path / "bundled")
    assert load_config(find_config("bundled")).name == "x"
    for stranger in ("mine", "../recipes/synthetic", ""):
        with pytest.raises(FileNotFoundError, match=r"neither a file nor a recipe .*bundled, .*synthetic"):
            find_config(stranger)


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_is_valid(recipe: str) -> None:
    assert load_config(find_config(recipe)).name == recipe


def test_the_data_of_the_recipes_is_looked_for_beside_the_project() -> None:
    data = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    for recipe in recipe_names():
        for source in load_config(find_config(recipe)).sources:
            assert not isinstance(source, FileSource) or source.path.is_relative_to(data.resolve())


def test_the_shipped_ranker_is_trained_on_permissive_data_only() -> None:
    config = load_config(find_config("bundled"))
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


def test_the_licence_is_that_of_all_sources_or_has_to_be_stated(tmp_path: Path) -> None:
    other = '[[sources]]\nkind = "synthetic"\nname = "t"\nlicence = "CC-BY-NC-4.0"\ncount = 9\n'
    alone = load_config(write(tmp_path, MINIMAL.replace("MIT", "CC-BY-NC-4.0")))
    assert alone.licence == alone.model_dump(mode="json")["licence"] == "CC-BY-NC-4.0"
    with pytest.raises(ConfigError, match=r"licence: the sources have several \(CC-BY-NC-4\.0, MIT\)"):
        load_config(write(tmp_path, MINIMAL + other))
    stated = load_config(write(tmp_path, 'licence = "CC-BY-NC-4.0"\n' + MINIMAL + other))
    assert stated.licence == "CC-BY-NC-4.0"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (MINIMAL + "colour = 1\n", r"sources\[0\].colour"),
        ("colour = 1\n" + MINIMAL, "colour"),
        (MINIMAL.replace("count = 9", "count = 0"), r"sources\[0\].count"),
        (MINIMAL.replace("count = 9\n", ""), r"sources\[0\].count"),
        (MINIMAL.replace('"synthetic"', '"ftp"'), r"sources\[0\]"),
        (MINIMAL + "[optimisation]\nlist_size = 1\n", "optimisation.list_size"),
        (
            MINIMAL + '[optimisation]\nlabel = "mean"\n',
            r"optimisation: .*label moved to the section \[loss\]",
        ),
        (MINIMAL + '[loss]\nname = "mse"\n', "loss.name"),
        (
            MINIMAL + "[loss]\nmargin = 2.0\n",
            "loss: .*margin is an option of margin, and the loss is listmle",
        ),
        (MINIMAL + '[loss]\nname = "margin"\nnear_tie = 1.0\n', "loss.near_tie"),
        (MINIMAL + "length_cap = 512\n", r"sources\[0\].length_cap"),
        (MINIMAL + "[model]\nmax_length = 1\n", "model.max_length"),
        (MINIMAL + '[model]\nbackbone = "gpt"\n[model.mini]\nlayers = 2\n', "model.mini"),
        (MINIMAL + "[model.mini]\nhidden_size = 10\nheads = 4\n", "hidden_size"),
        ("split = [0.5, 0.1, 0.1]\n" + MINIMAL, "split"),
        (MINIMAL + MINIMAL.split("\n", 1)[1], "sources: each needs a name"),
        ('name = "x"\nsources = []\n', "sources"),
        ('licence = ""\n' + MINIMAL, "licence"),
        (MINIMAL.replace('name = "x"', 'name = "../x"'), "name"),
        ("name =", "not valid TOML"),
    ],
)
def test_an_error_names_the_file_and_the_key(text: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"train\.toml: .*{key}"):
        load_config(write(tmp_path, text))


def test_the_options_of_a_loss_may_be_stated_where_they_are_the_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL + '[loss]\nname = "ranknet"\nlabel = "distribution"\n'))
    assert config.loss.name == "ranknet"
    assert type(config).model_validate(config.model_dump()) == config


def test_a_file_may_state_where_its_answers_were_cut(tmp_path: Path) -> None:
    text = MINIMAL.replace('"synthetic"', '"file"').replace("count = 9", 'path = "a.jsonl"\nlength_cap = 9')
    lines = ['{"prompt": "p", "lengths": [8, 9]}', '{"prompt": "q", "lengths": [10]}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    [source] = load_config(write(tmp_path, text)).sources
    assert [record.censored for record in read_source(source)] == [(False, True), (True,)]


def test_a_transplant_names_its_donor() -> None:
    assert ModelConfig(backbone="facebook/opt-125m").origin == "facebook/opt-125m"
    transplanted = ModelConfig(
        backbone="opt-transplant", transplant=TransplantConfig(donor="./bert", layers=[0, 2])
    )
    assert transplanted.origin == "opt-transplant of ./bert, layers 0, 2"
