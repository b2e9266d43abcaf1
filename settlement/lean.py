"""What is said before libraries are loaded, so that a program starts at less cost."""

import gc
import os

_OBJECTS = 10_000
"""So many new objects, where Python waits for 700, before cycles among them are looked for."""


def start() -> None:
    """Keep Python and numpy from doing at the start what is in vain here.

    Call it before numpy is imported, in a program of our own: another may want these things.

    - numpy starts threads for algebra, each of which at first idles at full speed. No algebra is
      done here, and they would cost every start a tenth of a second. Only the C library is told;
      `os.environ`, which commands of the operator are given, stays as it was.
    - Python looks for cycles among the new objects of every module, some hundred times (10 ms).
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.putenv("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
