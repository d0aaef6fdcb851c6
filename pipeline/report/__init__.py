"""One self-contained HTML page that shows what a scoring run found.

`data` holds all that a page can show, `gallery` chooses which images to show, `render` writes the
page. Nothing here opens the store: the `score` stage reads, this package draws.
"""
