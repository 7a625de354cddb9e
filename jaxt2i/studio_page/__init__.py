"""The page of `python -m jaxt2i.studio`: what it reads, what it draws, and how it looks."""
