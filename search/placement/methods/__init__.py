"""One file a method of placement."""
