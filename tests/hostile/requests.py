"""Settings, batches and names that somebody typed or pasted."""

from hhlib import runs, settings
from hostile import hostile, put, refused


def words(_, text):
    """Settings as text."""
    return settings.read(text)


refused(
    "settings",
    words,
    [
        ("a name that does not exist", "learning_rat=1", "Did you mean 'learning_rate'?"),
        ("a name of Python", "__class__=1", "there is no setting '__class__'"),
        ("a word without a value", "bits", "each must be name=value"),
        ("a quote that is never closed", "bits='16", "it must be text such as"),
        ("two values for one name", "bits=16 bits=32", "bits is given twice"),
        ("a number that is infinite", "learning_rate=inf", "learning_rate"),
        ("a number that is none", "learning_rate=nan", "learning_rate"),
        ("a number beyond all", "learning_rate=1e999", "learning_rate"),
        ("a negative number of bits", "bits=-1", "bits is -1, but it must be a whole number from 1 to 1024"),
        ("a million bits", "bits=1000000", "bits is 1000000"),
        ("code in place of a number", "bits=__import__('os')", "bits"),
        ("a number in other digits", "bits=\u0661\u0666", "it must be a whole number"),
        ("a number of 5,000 digits", "bits=" + "9" * 5000, "bits"),
        ("a seed of 5,000 digits", "seed=" + "9" * 5000, "seed"),
        ("a path in place of a network", "network=timm:../../x", "network is 'timm:../../x'"),
        ("a path in place of a method", "method=../x", "method is '../x'"),
        ("a path in place of a data set", "dataset=../../nothing-here", "dataset is '../../nothing-here'"),
        ("a hyper-parameter of the loss that does not exist", "loss.harm=1", "harm"),
        ("a hyper-parameter of the loss that is none", "loss.alpha=nan", "alpha"),
        ("a part of the network that does not exist", "net.harm=1", "net.harm is no option"),
        ("more epochs at half size than there are", "epochs=2 small_epochs=2", "small_epochs is 2"),
        ("a zero byte in a name", "bi\0ts=16", "there is no setting"),
    ],
)


@hostile("settings", "a value with a semicolon, a quote and a dollar", gives="text, quoted for the shell")
def _(folder):
    given = settings.read("lists='a;b $(touch harm)'")
    assert given.lists == "a;b $(touch harm)"
    assert "'lists'" not in (command := runs.command(given))
    assert "'a;b $(touch harm)'" in command


def batch(folder, content):
    """A batch of this file."""
    import importlib

    return importlib.import_module("batch").read(put(folder / "own.yml", content))  # of tools/, see tests/conftest.py


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n"
LAUGHS += "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
refused(
    "batch",
    batch,
    [
        ("no YAML", "bits: [16", "own.yml is not YAML"),
        ("an object of Python", "bits: !!python/object/apply:os.system ['touch harm']", "own.yml is not YAML"),
        ("a name of Python", "bits: !!python/name:os.system", "own.yml is not YAML"),
        ("names that stand for a billion values", LAUGHS, "own.yml has 'a', but it may have"),
        ("names that stand for a billion values, as bits", LAUGHS.replace("i:", "bits:"), "own.yml has 'a'"),
        ("1,000 lists in each other", "bits: " + "[" * 1000, "own.yml"),
        ("a list", "- bits", "must hold names and values"),
        ("nothing", "", "must hold names and values"),
        ("bytes that are no text", b"\xff\xfe\xff", "own.yml is not YAML"),
        ("a key that does not exist", "bit: 16", "Did you mean 'bits'?"),
        ("no values", "bits: []", "bits is empty, but a batch needs at least one"),
        ("a value that does not fit", "bits: many", "bits is 'many'"),
        ("a page that does not exist", "pages: [99]", "there is no notebook '99'"),
        ("pages that are a number", "pages: 3", "own.yml"),
        ("the same run twice", "settings: {a: clip=1, b: clip=1}", "own.yml: the same run is asked for twice"),
        ("settings that are a list", "settings: [1]", "own.yml"),
        ("a resource that does not exist", "resources: {cores: 1}", "resources is 'cores'"),
        ("resources that are a list", "resources: [1]", "own.yml"),
        ("no memory", "resources: {mem_mb: 0}", "mem_mb is 0"),
    ],
)
