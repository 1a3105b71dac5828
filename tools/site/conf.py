# Sphinx makes the site from the Markdown pages as they stand in the tree; scripts/site.sh prepares the folder.
project = "updater"
author = "The updater authors"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "README"
html_theme = "furo"
html_title = "updater"
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_domain_indices = False
html_use_index = False
myst_heading_anchors = 4
highlight_language = "none"
# A link to a file that is no page, such as a schema, becomes a download.
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
smartquotes = False  # "--" in a table stays an option
