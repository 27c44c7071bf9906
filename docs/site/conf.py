"""The settings of the site (`make site`). stage.py lays its sources out beside a copy of this file."""

project = "Motion-I2V lite"
html_title = project
extensions = ["myst_nb", "sphinx-mathjax-offline"]
exclude_patterns = ["_static"]
nb_execution_mode = "off"  # what `make notebooks` stored is shown
myst_enable_extensions = ["dollarmath", "amsmath", "html_image"]
myst_heading_anchors = 3
suppress_warnings = [
    "myst.header",  # notebooks have headings of any level in one cell
    "myst.xref_missing",  # links to files of the repository that are no pages
    "mystnb.unknown_mime_type",
]
html_theme = "sphinx_book_theme"
html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sphinx = False
html_copy_source = False
html_use_index = False
