"""A second reader of the repository format, written from docs/format.md and nothing else.

Section numbers in this package are those of that page.
"""
