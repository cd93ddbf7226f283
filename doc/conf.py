"""Configuration of Sphinx. The build needs no network: formulas are set by a local MathJax."""

import sys
from pathlib import Path

from numpydoc.docscrape_sphinx import SphinxDocString

import pot_semidiscrete
from pot_semidiscrete.generative.compared import ComparedData
from pot_semidiscrete.generative.potential import TrackedPotential
from pot_semidiscrete.plan import SemiDiscretePlan

sys.path.insert(0, str(Path(__file__).parent))
import gallery

project = "pot_semidiscrete"
author = copyright = "the pot_semidiscrete contributors"
version = release = pot_semidiscrete.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "literal"  # what docstrings put between single backticks is a name in the code

plot_formats = [("png", 110)]
plot_html_show_formats = plot_html_show_source_link = False
plot_basedir = str(Path(__file__).parent)
plot_pre_code = ""  # a page says what it imports

autosummary_generate = True
# bases that are not pages of their own: their methods stand with those of the class
_BASES = (SemiDiscretePlan, ComparedData, TrackedPotential)
_HOOKS = {"get_extra_state", "set_extra_state"}  # of torch
autosummary_context = {"bases": sorted({name for base in _BASES for name in vars(base)} - _HOOKS)}
autodoc_typehints = "none"
toc_object_entries = False
numpydoc_show_class_members = False  # the template of classes lists their own methods

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "capture_repr": (),
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "within_subsection_order": "gallery.Order",
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "pot_semidiscrete"
html_theme_options = {
    "header_links_before_dropdown": 7,
    "logo": {"text": "pot_semidiscrete"},
    "navbar_align": "left",
    "navigation_with_keys": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "show_toc_level": 2,
}
# pages without a neighbour in their section have no navigation on the left
html_sidebars = {name: [] for name in ("index", "installation", "tutorial", "api")}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = html_show_sourcelink = False

# what users receive and never build: their signatures would only distract
_RECEIVED = {
    f"pot_semidiscrete.{name}"
    for name in (
        "GradientDiagnostics",
        "OneSidedDerivatives",
        "ParameterResult",
        "applications.BarycenterResult",
        "applications.QuantizationResult",
        "SemiDiscreteResult",
        "SolverState",
        "generative.TrainingResult",
    )
}


def _hide_signature(app, what, name, obj, options, signature, return_annotation):
    return ("", None) if name in _RECEIVED else None


def _as_written(self, param, desc, fake_autosummary, process=SphinxDocString._process_param):
    # numpydoc would replace what a class says of an attribute by the docstring of the property,
    # which for members of ot.utils.OTResult is about something else
    return process(self, param, desc, False)


def setup(app):
    SphinxDocString._process_param = _as_written
    app.connect("autodoc-process-signature", _hide_signature)
    app.connect("builder-inited", gallery.crop, priority=900)  # after the gallery was run
