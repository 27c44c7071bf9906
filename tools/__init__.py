"""Programs for those who work on the project itself; run them in the repository's folder, `python -m tools.NAME`."""
