"""Configuration of Sphinx. The build needs no network: formulas are set by a local MathJax."""

from numpydoc.docscrape_sphinx import SphinxDocString

import pot_semidiscrete
from pot_semidiscrete.generative.potential import TrackedPotential
from pot_semidiscrete.plan import SemiDiscretePlan

project = "pot_semidiscrete"
author = copyright = "the pot_semidiscrete contributors"
version = release = pot_semidiscrete.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "literal"  # what docstrings put between single backticks is a name in the code

autosummary_generate = True
# bases that are not pages of their own: their methods stand with those of the class
_BASES = (SemiDiscretePlan, TrackedPotential)
autosummary_context = {"bases": sorted({name for base in _BASES for name in vars(base)})}
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
    "write_computation_times": False,
}

html_theme = "alabaster"
html_theme_options = {
    "body_max_width": "880px",
    "description": "Semi-discrete optimal transport beside POT, and generators trained by it",
    "fixed_sidebar": True,
    "font_family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif",
    "head_font_family": "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif",
    "page_width": "1180px",
    "show_powered_by": False,
    "show_relbars": False,
    "sidebar_width": "240px",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
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
