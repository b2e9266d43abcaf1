"""Measurements, run by hand. Figures depend on the machine; ratios matter.

    python -m tests.bench.compare     side by side on the same files (make bench)
    python -m tests.bench.scale       growth with rows and with accounts, drawn (make bench-scale)
    python -m tests.bench.revision    a month stated anew, beside its first settlement

`logs` names the call logs and sees that they are there; `generate` makes them. `contestants`
does one piece of work in a process of its own; `measure` starts such processes and says what
they cost; `results` says what they found, so that only equal work is compared.

Whoever starts contestants imports nothing but the standard library: Linux charges a new
process with the peak memory of the one that started it.
"""
