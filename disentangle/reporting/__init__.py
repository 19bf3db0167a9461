"""The report of runs: what it says, and how it is written as HTML and as Markdown."""
