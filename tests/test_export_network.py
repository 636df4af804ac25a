"""A network taken out of the kit: the module, its folder, and its exported programs give the codes of the run."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import hhlib as hh

TINY = "net.embed_dims=16,32,64 net.num_heads=2,2,2 net.depths=1,1,1 small_epochs=0"
KINDS = {
    "hybridhash": dict(network="micro", settings=TINY),
    "flip": dict(network="micro", settings=f"{TINY} flip_average=true net.stem=conv"),
    "tuned": dict(network="timm:test_efficientnet", settings="pretrained=false small_epochs=0", image_size=64),
    "frozen": dict(network="lite0", settings="hidden=16", image_size=48),
}


def made(folder, dataset, *, settings, **values):
    """A run as training leaves it, except that its weights are random and its normalisations saw one batch."""
    ex = hh.open(settings, dataset=dataset, bits=12, precision="float32", data_dir=folder, runs_dir=folder, **values)
    hh.runs.write_json(ex.run.path / "run.json", ex.trainer().record | hh.runs.surroundings())
    net = ex.untrained().train()
    with torch.no_grad():
        net(torch.rand(64, 1280) if ex.backbone else ex.pictures("train", range(64))[1])
    save_file({name: x.contiguous() for name, x in net.state_dict().items()}, ex.run.path / "model.safetensors")
    return ex


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    """``experiments(kind)`` -> its run on drawn shapes, whose mirror images keep their labels."""
    known = {}

    def get(kind):
        if kind not in known:
            known[kind] = made(tmp_path_factory.mktemp(kind), "digits" if kind == "frozen" else "shapes", **KINDS[kind])
        return known[kind]

    return get


def some(ex, count=20):
    """Pictures of the query part, as they are before scaling: (n, 3, 32, 32) uint8."""
    return ex.split.query.batch(np.arange(count))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_gives_exactly_what_the_experiment_does(kind, experiments):
    ex = experiments(kind)
    encoder = hh.encoder.encoder_of(ex.run)
    assert encoder.flip == (kind == "flip")
    for images in (some(ex), some(ex)[:, :, 4:20, 4:20]):  # of any side
        z = encoder(images)
        assert z.dtype == torch.float32
        assert z.abs().median() > 1e-3
        assert torch.equal(z, ex.encode(images))


def test_an_average_with_the_mirror_image_is_that_of_the_mirror_image(experiments):
    images = some(experiments("flip"))
    mirrored, plain = (hh.encoder.encoder_of(experiments(kind).run) for kind in ("flip", "hybridhash"))
    torch.testing.assert_close(mirrored(images), mirrored(images.flip(3)))
    assert not torch.allclose(plain(images), plain(images.flip(3)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_encoder_needs_neither_run_nor_hub(kind, experiments, hub, tmp_path):
    ex = experiments(kind)
    z = ex.encode(some(ex))
    folder = tmp_path / "saved"
    hh.encoder.encoder_of(ex.run).save_pretrained(folder)
    again = hh.Encoder.from_pretrained(folder)
    assert torch.equal(again(some(ex)), z)
    assert again.about["data"]["classes"] == ex.split.classes
    state = load_file(folder / "model.safetensors")
    lost = next(name for name in state if name.endswith("weight"))
    del state[lost]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"1 of the network's .* tensors are not in the file: {lost}"):
        hh.Encoder.from_pretrained(folder)


def test_the_model_card_tells_the_run(experiments, tmp_path):
    ex = experiments("tuned")
    hh.encoder.encoder_of(ex.run).save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == hh.network.facts_of("timm:test_efficientnet").license
    sizes = "{:,} query, {:,} training, {:,} database".format(*ex.split.sizes.values())
    for words in (sizes, "64 x 64 pixels", "z >= 0", "(n, 2) uint8", "`timm:test_efficientnet`", "random at the start"):
        assert words in card.text, words
    assert "## Scores" not in card.text  # it has none


def test_the_scores_of_a_run_are_on_its_card():
    ex = hh.kept("cifar10-2-64bits")
    about = hh.encoder.facts_for_card(ex.run)
    model = dict(name="micro", bits=64, stem="conv")
    text = hh.Encoder(model, mean=[0.5] * 3, std=[0.25] * 3, about=about).generate_model_card().text
    for score in ("**0.902**", "gives 0.878, the best 0.914", "nothing 0.100", "48,000 images, 2,000 held out"):
        assert score in text, score
    for remark in ex.run.metrics()["remarks"]:
        assert f"\n- {remark}\n" in text


def test_vectors_of_another_size_are_refused(experiments, tmp_path):
    run = hh.runs.Run(shutil.copytree(experiments("frozen").run.path, tmp_path / "run"))
    record = run.record
    record["data"]["image_size"] = 32
    hh.runs.write_json(run.path / "run.json", record)
    with pytest.raises(ValueError, match="was trained on vectors of lite0 .* pictures of 32 pixels gives"):
        hh.encoder.encoder_of(run)


def test_what_is_no_picture_is_refused(experiments):
    encoder = hh.encoder.encoder_of(experiments("hybridhash").run)
    for images in (torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 16, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"but they must be \(n, 3, S, S\) torch.uint8"):
            encoder(images)


# ---- the command


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run, its kept settings, and the folder that the command writes of it."""
    from importlib import import_module

    folder = tmp_path_factory.mktemp("exported")
    ex = made(folder, "digits", **KINDS["hybridhash"])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(hh.runs.RESULTS.parent / "tools")
        patch.setattr("sys.argv", ["export.py", "network", str(ex.run.path), str(folder / "out")])
        assert import_module("export").main() == 0
    return ex, folder / "out"


def test_the_folder_holds_what_the_card_lists(exported):
    _, folder = exported
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "check.json",
        "config.json",
        "model.safetensors",
        "network-int8.onnx",
        "network.onnx",
        "network.pt2",
    }
    text = (folder / "README.md").read_text()
    assert all(f"| `{name}` |" in text for name in names - {"README.md"})


def session(path):
    run = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run
    return lambda images: torch.from_numpy(run(None, {"images": images.numpy()})[0])


@pytest.mark.parametrize("count", [1, 7, 200])
def test_exported_programs_give_the_runs_bits_for_any_number_of_images(count, exported):
    ex, folder = exported
    images = some(ex, count)
    z = ex.encode(images)
    sure = z.abs() >= 1e-4
    assert sure.double().mean() > 0.9
    for program in (torch.export.load(folder / "network.pt2").module(), session(folder / "network.onnx")):
        found = program(images)
        assert found.shape == (count, 12)
        assert torch.equal((found >= 0)[sure], (z >= 0)[sure])


def test_no_picture_leaves_with_the_network(exported):
    """A program of torch.export keeps the pictures it was traced with."""
    ((images,), _) = torch.export.load(exported[1] / "network.pt2").example_inputs
    assert not images.any()


def test_check_json_says_what_was_compared(exported):
    ex, folder = exported
    check = json.loads((folder / "check.json").read_text())
    rows = {row["form"]: row for row in check["forms"]}
    assert (check["side"], check["images"], check["bits"]) == (32, 200, 12)
    assert list(rows) == ["PyTorch, float32", "torch.export", "ONNX", "PyTorch, bf16", "ONNX, int8"]
    z, int8 = ex.encode(some(ex, 200)), session(folder / "network-int8.onnx")(some(ex, 200))
    differ = (int8 >= 0) != (z >= 0)
    found = rows["ONNX, int8"]
    assert found["differing"] == int(differ.sum())
    assert found["differing_above"] == int((differ & (z.abs() >= 1e-4)).sum())
    assert found["equal_bits"] == pytest.approx(1 - differ.double().mean().item())
    assert found["bytes"] == (folder / "network-int8.onnx").stat().st_size
    codes, labels = hh.retrieval.pack(z), ex.labels["query"]
    own = hh.metrics.evaluate(codes[::2], labels[::2], codes[1::2], labels[1::2], bits=12)
    assert rows["PyTorch, float32"]["map"] == own["map"]["expected"]


def test_forms_are_compared_bit_by_bit(from_tools):
    """Two images, two bits; one output is too near to 0 to be sure of its bit."""
    portable = from_tools("portable")
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.eye(2)
    exact = torch.tensor([[1.0, -2.0], [-0.5, 5e-5]])
    near = torch.tensor([[1.0, -2.0], [-0.5, -5e-5]])
    wrong = torch.tensor([[1.0, 0.0], [-0.5, 5e-5]])  # 0 counts as a 1
    forms = {"PyTorch, float32": lambda _: exact, "ONNX": lambda _: near, "ONNX, int8": lambda _: wrong}
    rows = {row["form"]: row for row in portable.compare(forms, images, labels)}
    counts = {form: (row["equal_bits"], row["differing"], row["differing_above"]) for form, row in rows.items()}
    assert counts == {"PyTorch, float32": (1, 0, 0), "ONNX": (0.75, 1, 0), "ONNX, int8": (0.75, 1, 1)}
    assert rows["ONNX, int8"]["largest_difference"] == 2
    with pytest.raises(ValueError, match=r"network.onnx and PyTorch differ in 1 of 4 bits where \|z\| is at least"):
        portable.compare(forms | {"ONNX": lambda _: wrong}, images, labels)
    assert portable.score(exact, torch.zeros(2, 2)) is None  # no labels


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{}/nothing", "{}/out"], "nothing/run.json does not exist: training makes it."),
        (["{}/run", "{}/out"], "model.safetensors does not exist; this makes it: python tools/run_notebooks.py"),
        (["{}/run", "-p", "bits", "8", "{}/out"], "but -p says"),
        (["-p", "runs_dir", "{}", "{}/out"], "model.safetensors does not exist; this makes it"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_sentence(words, says, from_tools, monkeypatch, capsys, tmp_path):
    shutil.copytree(hh.runs.RESULTS / "digits-32bits", tmp_path / "run")
    monkeypatch.setattr("sys.argv", ["export.py", "network", *(word.format(tmp_path) for word in words)])
    assert from_tools("export").main() == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert says in error
    assert not (tmp_path / "out").exists()


def test_an_encoder_needs_a_trained_run():
    with pytest.raises(FileNotFoundError, match=r"model.safetensors does not exist"):
        hh.encoder.encoder_of(hh.runs.kept("digits-32bits"))
