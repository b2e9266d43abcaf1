"""What happens to a book when the machine under it fails, tried at every point there is.

`make faults` runs all of it and prints what was tried; the suite runs a part (test_faults.py).

    scenarios   the commands that are disturbed, and what they must come to
    running     running a command in a fork, traced by strace, which also injects the faults
    calls       what strace saw, as records
    verdict     what must hold after any fault: the book as before or after, and the next run
    crashes     killed before every file-system call, and every one of them failing
    disk        a file system that forgets what was not flushed
    power       power lost after every change, in the orders such a disk allows
    crowd       many processes at once, killed at random, with readers among them

Nothing is simulated but the lost power: the program is the real one, its processes are real,
and the kernel kills them or refuses their calls. What is left out is the half second of imports
(a warm process is forked) and the order of threads (tasks of a pool are run one after another,
so that the nth call is the same call each time).
"""
