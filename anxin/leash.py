"""Run a program that cannot outlive its parent: `leash.py PARENT SIGNAL UID GID PROGRAM ARGS...`.

Executed by path with `python -I -S`, and replaced by the program, which so stays a direct child of
the parent. A `preexec_fn` would do the same between fork and exec, where a threaded parent may hold
locks that the child can never release. UID and GID are `-` to keep those of the parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, on_death: int, uid: str, gid: str, program: list[str]) -> None:
    """Become `program`; the kernel sends it `on_death` when the parent's thread ends (Linux)."""
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    # After the change of user, which would clear the wish.
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, on_death) != 0:
        raise SystemExit("leash: the kernel refused PR_SET_PDEATHSIG")
    # The parent may have died before the wish was known to the kernel.
    if os.getppid() != parent:
        raise SystemExit("leash: the parent process has ended")
    # A supervisor started in the background of a shell ignores SIGINT, and exec hands that on.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
