"""Judging pictures: sets of them, what networks see in them, scores, and reports.

`python -m jaxt2i.evaluate` is the command line of it. Networks are in `jaxt2i.encoders.features`,
formulas and protocols in `jaxt2i.metrics`.
"""
