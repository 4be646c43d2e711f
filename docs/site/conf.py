"""Sphinx settings of the documentation site; ``docs/site/build.py`` runs Sphinx with them."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

import public_names  # noqa: E402

import setup as project_setup  # noqa: E402

project = 'mmtimesformer'
author = 'the mmtimesformer authors'
project_copyright = author
release = version = project_setup.read_version()
_repository = project_setup.read_repository()

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
root_doc = 'index'

# Pages are the Markdown files of docs/, which the repository's web page shows too: so headings get
# the anchors that it gives them, and no syntax is used that it cannot show.
myst_heading_anchors = 6
myst_heading_slug_func = 'anchors.anchor_of'
myst_enable_extensions = ['colon_fence']
suppress_warnings = ['misc.highlighting_failure']  # console output in a block without a language

# API reference, from the docstrings
nitpicky = True
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_inherit_docstrings = False  # those of torch and MMEngine are in their own references
autodoc_class_signature = 'mixed'
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [('Shape', 'params_style')]
copybutton_prompt_text = '$ '

html_theme = 'furo'
html_title = f'mmtimesformer {release}'
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_static_path = [str(Path(__file__).parent / 'static')]
html_css_files = ['site.css']
html_theme_options = {'top_of_page_buttons': []}
if _repository:
    html_theme_options['footer_icons'] = [
        {'name': 'Repository', 'url': _repository, 'html': 'Repository', 'class': ''}
    ]


def setup(app):
    """Resolve references to names of the package that have no entry, and to other packages."""
    app.connect('missing-reference', public_names.resolve)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
