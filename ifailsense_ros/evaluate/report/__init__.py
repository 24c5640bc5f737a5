"""The HTML report of a results folder: one file, opens offline, on a phone as well.

`write.write_report` is the way in; numbers are made in `figures`, curves in `curves`, pictures of
them in `plots`; `assets` holds the page's template, style and script.
"""
