"""What the C library does with memory that is free again: give it back, so that a session of weeks stays as large as it is.

By default glibc keeps a heap for each of many threads, and learns to take even whole pictures from them; what is freed among
what is not stays with the process. Sources: mallopt(3) and malloc_trim(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

import ctypes
import threading
import time
from functools import cache

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # malloc.h
_EVERY_S = 30.0


@cache
def give_back_what_is_free() -> None:
    """From now on, let large blocks go back to the system at once, and the rest every half minute.

    To be called before other threads are started; a second time changes nothing, nor where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        return
    library.mallopt(_ARENA_MAX, 2)
    library.mallopt(_MMAP_THRESHOLD, 1_000_000)  # bytes: pictures, and not what is made and dropped all the time
    threading.Thread(target=_trim, args=(library,), name="memory", daemon=True).start()


def _trim(library: ctypes.CDLL) -> None:
    while True:
        time.sleep(_EVERY_S)
        library.malloc_trim(0)
