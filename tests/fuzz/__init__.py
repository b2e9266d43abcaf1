"""Coverage-guided fuzzing of what reads files that people and other programs write.

`targets` says what is done with the bytes and what may come of it, `__main__` feeds it bytes
that reach ever more of the program, and ``corpus`` keeps a few to begin with and those that once
came to something else: ``tests/test_fuzz.py`` tries these again without the fuzzer.
"""
