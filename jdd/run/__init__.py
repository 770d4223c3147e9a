"""One run: its context, its working directory, its stages in order."""
