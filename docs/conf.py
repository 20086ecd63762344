"""How the site is built: ``sphinx-build -W -c docs -b html . site``, with the extra ``docs``.

The source folder is the checkout, so that the links of a page to the README or to a table of
measurements are the same on a code host and in the site. Nothing comes from the network while it
is built or read. Files with ``.py`` are notebooks here, so a page links no module.
"""

import sys
from pathlib import Path

import jaxclf
from jaxclf.compilation_cache import use_compilation_cache

sys.path.insert(0, str(Path(__file__).parent))
use_compilation_cache()

project = "jaxclf"
author = "the authors of jaxclf"
copyright = author
version = release = jaxclf.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_external_toc",
]
include_patterns = ["*.md", "docs/**", "experiments/README.md", "experiments/figures/**"]
exclude_patterns = ["docs/*.py"]
external_toc_path = "docs/toc.yml"

html_theme = "furo"
html_title = f"jaxclf {version}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_js_files = ["search.js"]
html_additional_pages = {"index": "to-the-first-page.html"}
templates_path = ["_templates"]
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
pygments_style = "tango"
pygments_dark_style = "github-dark"
copybutton_exclude = ".linenos, .gp, .go"

myst_heading_anchors = 3

# The notebooks are run at each build, and one that fails fails the build.
nb_custom_formats = {".py": "run_notebook.read_and_run"}
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_maximum_signature_line_length = 88
