"""100 classes of ImageNet (ILSVRC-2012) from its class folders; the classes are those of HashNet (Cao et al., 2017)."""

from pathlib import Path

import numpy as np
import torch
from timm.data import ImageNetInfo

from hhlib.common import Missing
from hhlib.data.files import ImageFiles
from hhlib.data.splits import Pool, one_hot

FOLDER = "imagenet"
#: Label index -> WordNet id, in the order of the published lists.
SYNSETS = """
    n01514668 n01537544 n01560419 n01629819 n01632458 n01664065 n01685808 n01687978 n01698640 n01729322 n01774750
    n01797886 n01819313 n01828970 n01944390 n01986214 n02017213 n02018207 n02077923 n02088466 n02093256 n02094114
    n02096177 n02096294 n02097209 n02098105 n02102177 n02105162 n02106550 n02111129 n02111277 n02113023 n02128385
    n02256656 n02281787 n02346627 n02391049 n02408429 n02415577 n02454379 n02488291 n02526121 n02655020 n02834397
    n02840245 n02841315 n02865351 n02871525 n02895154 n02939185 n02948072 n02965783 n02992211 n03018349 n03045698
    n03047690 n03196217 n03223299 n03272562 n03291819 n03345487 n03445924 n03483316 n03584829 n03680355 n03690938
    n03733131 n03743016 n03803284 n03814639 n03838899 n03857828 n03891332 n03895866 n03899768 n03902125 n03944341
    n04026417 n04153751 n04201297 n04238763 n04254120 n04344873 n04350905 n04366367 n04404412 n04417672 n04435653
    n04486054 n04548362 n04560804 n04579432 n04596742 n07583066 n07584110 n07753113 n07754684 n07836838 n12057211
    n13044778
""".split()  # noqa: SIM905, a hundred short words


def imagenet(root: Path, size: int) -> Pool:
    """Training and validation images of 100 classes; the validation images are held out, to be the queries.

    `root` holds `imagenet/train/<synset>/*.JPEG` and `imagenet/val/<synset>/*.JPEG`; pictures are cut and scaled to
    `size` pixels. Raises FileNotFoundError if a class folder is missing or empty.
    """
    folder, paths = root / FOLDER, []
    for part in ("train", "val"):
        files = [sorted((folder / part / synset).glob("*")) for synset in SYNSETS]
        found = [[file.name for file in each if file.suffix.lower() in (".jpeg", ".jpg")] for each in files]
        if empty := [synset for synset, names in zip(SYNSETS, found, strict=True) if not names]:
            flat = " (val must be sorted into class folders too)" if part == "val" else ""
            raise Missing(f"{folder / part} lacks pictures in {len(empty)} of 100 class folders, first in "
                                    f"{empty[0]}{flat}; data/README.md says where they come from.")  # fmt: skip
        paths += [f"{part}/{synset}/{name}" for synset, names in zip(SYNSETS, found, strict=True) for name in names]
    labels = one_hot(np.array([SYNSETS.index(path.split("/")[1]) for path in paths]), len(SYNSETS))
    held_out = torch.tensor([path.startswith("val/") for path in paths])
    classes = [ImageNetInfo().label_name_to_description(synset).split(",")[0] for synset in SYNSETS]
    return Pool(ImageFiles(folder, paths, size), labels, classes, True, paths, held_out)
