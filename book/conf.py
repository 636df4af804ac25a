"""Settings of the book; ``make book`` builds it from the project's folder, see tools/book.py."""

import sys
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here))
from kit import code_of  # noqa: E402, it lies beside this file

project = "HybridHash kit"
author = "the HybridHash kit's authors"
language = "en"
root_doc = "book/index"
include_patterns = [
    "book/*.md",
    "book/api/*.rst",
    "notebooks/[0-9]*.ipynb",
    "notebooks/exercises/[0-9]*.ipynb",
    "README*.md",
    "data/README.md",
    "batches/README.md",
    "benchmarks/README.md",
    "results/README.md",
    "SECURITY.md",
    "results/*/README.md",
]
# folders that may be large, and need not be walked through
exclude_patterns = [".*", "book/_build", "data/*/*", "runs", "tests", "notebooks/exercises/solutions"]
NEEDED = {"exercises": "../notebooks/exercises/[0-9]*.ipynb", "explorer": "explorer/index.html"}
exclude_patterns += [f"book/{page}.md" for page, files in NEEDED.items() if not list(here.glob(files))]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "kit",
]
suppress_warnings = ["ref.python"]  # several classes may have an attribute of one name

nb_execution_mode = "off"  # tools/book.py executes pages
nb_ipywidgets_js = {}  # nothing is loaded from elsewhere
nb_merge_streams = True
nb_code_prompt_show = "code of this cell"
nb_code_prompt_hide = "hide the code"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_dmath_double_inline = True
myst_heading_anchors = 4
html_math_renderer = "mathml"

default_role = "py:obj"  # a name between backticks leads to its documentation, where there is one
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Returns"]  # sentences; their types are in the signature
python_maximum_signature_line_length = 110
add_module_names = False
toc_object_entries_show_parents = "hide"


def linkcode_resolve(domain: str, info: dict) -> str | None:
    """Where the code of something documented is."""
    return code_of(info["module"], info["fullname"]) if domain == "py" else None


highlight_language = "none"  # of a formula or a command in the text
html_theme = "sphinx_book_theme"
html_title = "HybridHash kit"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "extra_footer": "",
}
