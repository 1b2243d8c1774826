"Sphinx's settings for the site that docs/make_site.py builds."
from latex2mathml.converter import convert
from docutils.nodes import SkipNode

project, author, html_title = 'transfer_influence', 'The transfer_influence developers', 'transfer_influence'
extensions = ['myst_nb']
nb_execution_mode = 'off'  # figures and texts are those saved in the notebooks
nb_merge_streams = True
myst_enable_extensions = ['dollarmath']
exclude_patterns = ['files', '.html']
html_theme, html_static_path, html_css_files = 'furo', ['static'], ['site.css']
html_favicon = 'static/icon.svg'
html_copy_source = html_show_sphinx = html_show_copyright = False
html_math_renderer = 'mathml'  # no script, and nothing from elsewhere


def mathml(display):
    "How a formula becomes MathML: inline or as a block."
    def visit(self, node):
        self.body.append(convert(node.astext(), display=display)); raise SkipNode
    return visit, None


def setup(app): app.add_html_math_renderer('mathml', mathml('inline'), mathml('block'))
