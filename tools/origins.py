"""Where the pictures of a data set come from, and under which terms: the facts of data/README.md, for programs."""

from dataclasses import dataclass

import hhlib as hh

LICENSE = "https://spdx.org/licenses/Apache-2.0"  #: of the kit, and of what it makes


@dataclass(frozen=True)
class Origin:
    """Where pictures come from."""

    about: str
    license: str | None = None  #: of the pictures: address, or what is known about it
    url: str | None = None
    cite: str | None = None
    order: str = ""  #: what a picture's row counts, where pictures have no path


#: By the beginning of a data set's name.
ORIGINS = {
    "digits": Origin(
        "The handwritten digits that come with scikit-learn, enlarged from 8 x 8 to 32 x 32 pixels.",
        "https://creativecommons.org/licenses/by/4.0/",
        "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998",
        "the images of sklearn.datasets.load_digits",
    ),
    "shapes": Origin(
        "Coloured shapes of 32 x 32 pixels, drawn by hhlib.data.sources.shapes(count=3500, seed=0).",
        LICENSE,
        cite="The HybridHash kit",
        order="the images that it draws",
    ),
    "cifar10": Origin(
        "Photographs of 32 x 32 pixels from the official files of CIFAR-10.",
        "No licence is stated with the archive; it is free to download for research.",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        "the images of data_batch_1 to data_batch_5, then those of test_batch",
    ),
    "clothes": Origin(
        "Photographs of clothes, taken by volunteers with their phones.",
        "https://creativecommons.org/publicdomain/zero/1.0/",
        "https://github.com/alexeygrigorev/clothing-dataset-small",
        "Grigorev, Clothing dataset, 2020",
    ),
    "nuswide": Origin(
        "Photographs from Flickr with concepts from the official files of NUS-WIDE.",
        "The pictures belong to their photographers; the authors of NUS-WIDE send them on request.",
        "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html",
        "Chua et al., NUS-WIDE: a real-world web image database, CIVR 2009",
    ),
    "imagenet": Origin(
        "Photographs of 100 classes of ILSVRC-2012.",
        "For research and teaching only, after registration.",
        "https://image-net.org/download-images",
        "Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
    ),
    "coco": Origin(
        "Photographs from Flickr with the annotations of MS-COCO 2014.",
        "Annotations: CC BY 4.0. Pictures: Flickr's terms of use.",
        "https://cocodataset.org",
        "Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
    ),
}


def origin_of(name: str) -> Origin:
    """Where the pictures of a data set come from."""
    if name in hh.data.names():
        return next(origin for start, origin in ORIGINS.items() if name.startswith(start))
    return Origin(f"The pictures of a folder named {name}.")
