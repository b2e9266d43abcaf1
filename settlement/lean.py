"""What libraries are told before they are loaded, so that a program starts at less cost."""

import os


def start() -> None:
    """Keep numpy from starting threads for algebra, each of which at first idles at full speed.

    No algebra is done here, and the threads would cost every start a tenth of a second. Call it
    before numpy is imported, in a program of our own: another may want them. Only the C library
    is told; `os.environ`, which commands of the operator are given, stays as it was.
    """
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.putenv("OPENBLAS_NUM_THREADS", "1")
