"""How memory that arrays give back is kept for the next ones.

The C library hands every array beyond 128 kB back to the system, which clears the next one page
by page at its first touch: a tenth of the time of a count. Asked to keep what was freed, it uses
the same memory again. That is a wish, and where it cannot be said nothing else changes.
"""

import ctypes
import functools

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
"""Names of options of glibc's ``mallopt``."""


@functools.cache
def keep_freed() -> bool:
    """Keep freed memory for arrays to come, for the rest of the process; tell whether it is so.

    One heap is shared by all threads, arrays below 1 GiB come from it, and 256 MiB of it may
    lie idle at its end.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wishes = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, 256 << 20))
    said = [mallopt(name, value) == 1 for name, value in wishes]
    return all(said)
