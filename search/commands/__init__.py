"""One module a command of `perfmodel`: parse, call, print."""
