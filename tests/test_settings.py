"""Values set by name: what they become, what is refused, and that every way to set one means the same."""

import os
import shlex
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import pytest
import torch

import hhlib as hh
from hhlib import settings

PROJECT = Path(__file__).parent.parent


def value_of(given, name):
    """A setting by its full name."""
    if name.startswith("loss."):
        return given.recipe.loss[name.removeprefix("loss.")]
    return getattr(given, name) if hasattr(given, name) else getattr(given.recipe, name)


GOOD = [
    ("bits=16", "bits", 16),
    ("bits=1024", "bits", 1024),
    ("erase=0", "erase", 0),
    ("recipe.erase=0", "erase", 0),
    ("recipe.erase=8", "erase", 8),
    ("clip=0", "clip", 0),
    ("learning_rate=1e-4", "learning_rate", 1e-4),
    ("learning_rate=.01", "learning_rate", 0.01),
    ("weight_decay=0", "weight_decay", 0),
    ("validation=0", "validation", 0),
    ("flip=false", "flip", False),
    ("flip=no", "flip", False),
    ("resume=False", "resume", False),
    ("resume=0", "resume", False),
    ("resume=true", "resume", True),
    ("tensorboard=yes", "tensorboard", True),
    ("runs_dir=2014", "runs_dir", "2014"),
    ("runs_dir=2024_11_05", "runs_dir", "2024_11_05"),
    ("data_dir='/my pictures'", "data_dir", "/my pictures"),
    ("lists=", "lists", ""),
    ("image_size=none", "image_size", None),
    ("image_size=64", "image_size", 64),
    ("topk=5", "topk", 5),
    ("loss.alpha=0.2", "loss.alpha", 0.2),
    ("recipe.loss.alpha=2", "loss.alpha", 2.0),
    ("loss.alpha=none", "loss.alpha", None),
    ("loss.unseen=dissimilar", "loss.unseen", "dissimilar"),
    ("method=hashnet loss.jaccard=false", "loss.jaccard", False),
    ("method=adsh loss.sample=100", "loss.sample", 100),
    ("method=hybridhash_nested loss.lengths=8,32", "loss.lengths", (8, 32)),
    ("recipe=released", "optimizer", "rmsprop"),
    ("optimizer=rmsprop", "optimizer", "rmsprop"),
]

BAD = [
    ("bitz=3", "'bitz'", "'bits'"),
    ("lr=3", "'lr'", ""),
    ("batchsize=3", "'batchsize'", "'batch_size'"),
    ("recipe.bit=3", "'bit'", "'bits'"),
    ("loss.alfa=2", "alfa", "alpha"),
    ("method=csq loss.alpha=1", "alpha", "quantisation"),
    ("loss=0.5", "loss", "loss.alpha"),
    ("bits", "'bits'", "name=value"),
    ("bits=0", "bits is 0", "1 to 1024"),
    ("bits=1025", "bits is 1025", "1 to 1024"),
    ("bits=12.5", "bits is '12.5'", "whole number"),
    ("bits=many", "bits is 'many'", "whole number"),
    ("bits=1_6", "bits is '1_6'", "whole number"),
    ("seed=-1", "seed is -1", "0 to 4294967295"),
    ("seed=4294967296", "seed is 4294967296", "0 to 4294967295"),
    ("image_size=1000000", "image_size is 1000000", "1 to 2048"),
    ("dataset=mnist", "'mnist'", "digits"),
    ("method=magic", "'magic'", "hybridhash"),
    ("network=huge", "'huge'", "micro"),
    ("resume=maybe", "resume is 'maybe'", "true or false"),
    ("live=2", "live is '2'", "true or false"),
    ("learning_rate=inf", "learning_rate is 'inf'", "number"),
    ("learning_rate=nan", "learning_rate is 'nan'", "number"),
    ("learning_rate=0", "learning_rate is 0", "above 0"),
    ("weight_decay=little", "weight_decay is 'little'", "number"),
    ("warmup=1", "warmup is 1", "below 1"),
    ("epochs=0", "epochs is 0", "at least 1"),
    ("small_epochs=10", "small_epochs is 10", "0 to 9"),
    ("micro_batches=0", "micro_batches is 0", "at least 1"),
    ("optimizer=sgd", "'sgd'", "adamw"),
    ("schedule=step", "'step'", "one_cycle"),
    ("choose=test", "'test'", "validation"),
    ("device=tpu", "'tpu'", "cuda"),
    ("precision=fp8", "'fp8'", "bf16"),
    ("recipe=paper", "'paper'", "released"),
    ("loss.alpha=0", "alpha is 0", "above 0"),
    ("loss.alpha=abc", "loss.alpha is 'abc'", "number"),
    ("loss.unseen=all", "'all'", "skip"),
    ("bits=8 bits=16", "bits is given twice", "16"),
    ("bits='8", "bits='8", "bits=16"),
]


@pytest.mark.parametrize(("text", "name", "value"), GOOD, ids=[row[0] for row in GOOD])
def test_text_is_read_as_the_type_of_the_field(text, name, value):
    found = value_of(settings.read(text), name)
    assert found == value
    assert type(found) is type(value) or isinstance(found, float)


@pytest.mark.parametrize(("text", "what", "allowed"), BAD, ids=[row[0] for row in BAD])
def test_what_does_not_fit_is_refused_in_a_sentence(text, what, allowed):
    with pytest.raises(ValueError) as refused:  # noqa: PT011, the sentence is looked at below
        settings.read(text)
    sentence = str(refused.value)
    assert what in sentence
    assert allowed in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("values", "name", "value"),
    [
        (dict(bits=16), "bits", 16),
        (dict(bits="16"), "bits", 16),
        (dict(erase=0, dataset="cifar10"), "erase", 0),
        ({"loss.alpha": 0.2}, "loss.alpha", 0.2),
        (dict(loss={"alpha": 0.2}), "loss.alpha", 0.2),
        (dict(recipe={"loss": {"alpha": 0.2}, "erase": 1}), "loss.alpha", 0.2),
        (dict(recipe=settings.Recipe(epochs=2)), "epochs", 2),
        (dict(recipe=settings.Recipe(epochs=2), epochs=3), "epochs", 3),
        (dict(runs_dir=Path("/x")), "runs_dir", "/x"),
    ],
)
def test_python_values_may_be_given_too(values, name, value):
    assert value_of(settings.read(**values), name) == value


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (dict(bits=12.5), "bits is 12.5"),
        (dict(bits=True), "bits is True"),
        (dict(flip=0), "flip is 0"),
        (dict(runs_dir=2014), "runs_dir is 2014"),
        (dict(learning_rate=float("inf")), "learning_rate is inf"),
        (dict(epochs=3.0), "epochs is 3.0"),
        (dict(bits=8, text="bits=16"), "bits is given twice"),
        (dict(text=16), "settings is 16"),
    ],
)
def test_python_values_that_do_not_fit_are_refused(values, what):
    with pytest.raises(ValueError, match=what):
        settings.read(values.pop("text", ""), **values)


def test_settings_cannot_be_changed_and_each_has_a_help_text():
    given = settings.read()
    with pytest.raises(FrozenInstanceError):
        given.bits = 16
    assert all(len(text) > 10 for text in settings.helps().values())
    names = [field.name for kind in (settings.Settings, settings.Recipe) for field in fields(kind)]
    assert len(set(names)) == len(names)  # one name, one meaning: a recipe's field needs no prefix


def test_words_are_read_back():
    text = settings.words([("data_dir", "/my pictures"), ("loss.alpha", 0.2), ("flip", False)])
    given = settings.read(text)
    assert (given.data_dir, given.recipe.loss["alpha"], given.recipe.flip) == ("/my pictures", 0.2, False)


@pytest.mark.parametrize(
    "text",
    ["", "bits=16 erase=0 dataset=cifar10 loss.alpha=0.2", "method=dnnh flip=false topk=5 runs_dir='/my runs'"],
)
def test_what_was_changed_reads_back_as_the_same_settings(text):
    given = settings.read(text)
    assert settings.read(settings.words(given.changes().items())) == given
    assert set(given.changes()) == {word.split("=")[0] for word in shlex.split(text)}


def test_recipes_by_data_set_and_method():
    recipe = settings.read(dataset="cifar10-1", epochs=7).recipe
    assert (recipe.epochs, recipe.optimizer, recipe.net) == (7, "muon", {"stem": "conv"})
    recipe = settings.read(dataset="cifar10-2", epochs=7).recipe
    assert (recipe.epochs, recipe.small_epochs) == (7, 2)  # 6 of 19, in proportion
    assert settings.read(dataset="cifar10-2", epochs=7, small_epochs=0).recipe.small_epochs == 0
    assert settings.read(dataset="cifar10", network="tiny").recipe.net == {}  # its pretrained weights must fit
    assert settings.read(method="dnnh").recipe.learning_rate == pytest.approx(0.3 * 2e-3)
    assert settings.read(method="dnnh", learning_rate=1e-3).recipe.learning_rate == 1e-3
    assert settings.read(dataset="imagenet").recipe.batch_size == 64


def test_alpha_follows_the_code_length_unless_it_is_given():
    labels, index = torch.eye(3)[[0, 0, 1]], torch.arange(3)
    for bits in (16, 32, 64):
        size, z = dict(bits=bits, num_classes=3, train_size=3), torch.linspace(-1, 1, 3 * bits).reshape(3, bits)
        started = hh.losses.create("hybridhash", **size, **settings.read(bits=bits).recipe.loss)
        by_hand = hh.losses.create("hybridhash", **size, alpha=10 / bits)
        assert started(z, labels, index) == by_hand(z, labels, index)
    assert settings.read("loss.alpha=0.5").recipe.loss == {"alpha": 0.5}
    assert settings.read("recipe=released").recipe.loss == {}  # then it is 0.5, as released


def test_the_released_recipe():
    recipe = settings.read("recipe=released", dataset="imagenet", method="dnnh").recipe
    assert (recipe.optimizer, recipe.learning_rate, recipe.weight_decay) == ("rmsprop", 2.5e-5, 1e-5)
    assert (recipe.batch_size, recipe.epochs, recipe.validate_every, recipe.pretrained) == (64, 12, 3, True)
    assert (recipe.shift, recipe.flip) == (16, True)  # 224 of 256 pixels
    recipe = settings.read("recipe=released epochs=2", dataset="cifar10").recipe
    assert (recipe.epochs, recipe.shift, recipe.flip, recipe.loss) == (2, 0, False, {})


# --- from the command line; tests/notebooks compares the runs that all ways of setting a value lead to ----------------


def test_make_run_calls_the_runner_with_the_values_of_the_environment():
    given = ["-p", "loss.alpha", "0.3", "-p", "data_dir", "/my pictures", "--only", "03"]
    ask = ["make", "--dry-run", "--assume-old", ".venv/installed", "run"]
    environment = os.environ | {"ARGS": shlex.join(given)}
    printed = subprocess.run(ask, capture_output=True, text=True, check=True, cwd=PROJECT, env=environment).stdout
    command = next(line for line in printed.splitlines() if "run_notebooks.py" in line)
    assert shlex.split(command)[1:] == ["tools/run_notebooks.py", *given]


@pytest.mark.parametrize(
    ("tool", "name", "value", "what"),
    [("run_notebooks", "bitz", "3", "'bitz'"), ("train", "resume", "maybe", "resume is 'maybe'")],
)
def test_the_command_line_refuses_what_python_refuses(
    tool, name, value, what, from_tools, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", [f"{tool}.py", "-p", name, value, "-p", "runs_dir", str(tmp_path)])
    monkeypatch.chdir(PROJECT)
    assert from_tools(tool).main() == 2
    said = capsys.readouterr().err
    assert what in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_changed_recipe_is_checked_again():
    with pytest.raises(ValueError, match="clip is -1"):
        replace(settings.Recipe(), clip=-1.0)


@pytest.mark.parametrize("text", ["x" * 9000, "x" * 9000 + "=1", f"bits={'9' * 9000}", f"method={'x' * 9000}"])
def test_a_long_value_is_refused_in_a_short_sentence(text):
    with pytest.raises(ValueError, match="setting|bits|method") as refused:
        settings.read(text)
    assert len(str(refused.value)) < 1000
