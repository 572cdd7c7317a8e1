"""Runs a command and counts its durable steps over all its threads: calls that change a file system.

    step.py LOG WHAT N COMMAND...

WHAT is `count` (N is ignored), `kill` (the whole process dies as it enters step N, which does not happen),
`kill:NAME` (the same, counting only steps of this name), `hook:COMMAND` (runs it as step N is entered),
`hooks:COMMAND` (the same at step N and at each one after it), or `once`/`from` with an errno, as in `once:28`: step N (and all
after it) fails with it. LOG gets the name of every step, one a line. Ends with the command's
exit code, or 128 + the signal that ended it.

A seccomp filter stops the command at these calls only, so that everything else runs at full speed.
"""

import ctypes
import os
import platform
import signal
import struct
import sys

CALLS = {
    "x86_64": (0xC000003E, {
        "fsync": 74, "fdatasync": 75, "ftruncate": 77, "rename": 82, "mkdir": 83, "link": 86, "unlink": 87,
        "symlink": 88, "fchmod": 91, "fchown": 93, "mkdirat": 258, "mknodat": 259, "fchownat": 260,
        "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "fchmodat": 268, "utimensat": 280,
        "fallocate": 285, "renameat2": 316, "pwrite64": 18, "write": 1, "openat": 257,
    }),
    "aarch64": (0xC00000B7, {
        "fsync": 82, "fdatasync": 83, "ftruncate": 46, "fchmod": 52, "fchown": 55, "mkdirat": 34, "mknodat": 33,
        "fchownat": 54, "unlinkat": 35, "renameat": 38, "linkat": 37, "symlinkat": 36, "fchmodat": 53,
        "utimensat": 88, "fallocate": 47, "renameat2": 276, "pwrite64": 68, "write": 64, "openat": 56,
    }),
}
# Shorter ones are wake-ups between threads; those to standard output and error are words for people.
WRITE_BYTES_MIN = 65
O_CREAT = 0o100

TRACEME, CONT, SETOPTIONS, GETEVENTMSG, POKEUSER = 0, 7, 0x4200, 0x4201, 6
EVENT_SECCOMP = 7
OPTIONS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 7 | 1 << 20  # fork, vfork, clone, exec, seccomp, exit-kill
WALL = 0x40000000
RET_TRACE, RET_ALLOW = 0x7FF00000, 0x7FFF0000

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, addr, data):
    if libc.ptrace(request, pid, addr, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def install_filter(arch, calls):
    """Every call of the table stops with its place in the table as the event's message."""
    load = lambda offset: struct.pack("HBBI", 0x20, 0, 0, offset)
    equal = lambda value, yes, no: struct.pack("HBBI", 0x15, yes, no, value)
    code = [load(4), equal(arch, 1, 0), struct.pack("HBBI", 0x06, 0, 0, RET_ALLOW), load(0)]
    for place, (name, number) in enumerate(calls.items()):
        stop = struct.pack("HBBI", 0x06, 0, 0, RET_TRACE | place)
        if name == "write":
            more = lambda value, no: struct.pack("HBBI", 0x35, 0, no, value)
            code += [equal(number, 0, 6), load(32), more(WRITE_BYTES_MIN, 3), load(16), more(3, 1), stop, load(0)]
        elif name == "openat":
            code += [equal(number, 0, 4), load(32), struct.pack("HBBI", 0x45, 0, 1, O_CREAT), stop, load(0)]
        else:
            code += [equal(number, 0, 1), stop]
    code.append(struct.pack("HBBI", 0x06, 0, 0, RET_ALLOW))
    text = b"".join(code)
    buffer = ctypes.create_string_buffer(text, len(text))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def fail_call(pid, errno):
    """At the stop of a call: skips it and makes it return an error."""
    if platform.machine() != "x86_64":
        sys.exit("step.py: errors can be put in on x86_64 only")
    mask = (1 << 64) - 1
    ptrace(POKEUSER, pid, 15 * 8, -1 & mask)
    ptrace(POKEUSER, pid, 10 * 8, -errno & mask)


def main():
    log, what, at, command = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
    arch, calls = CALLS[platform.machine()]
    names = list(calls)
    what, _, detail = what.partition(":")
    child = os.fork()
    if child == 0:
        ptrace(TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        install_filter(arch, calls)
        os.execvp(command[0], command)
    os.waitpid(child, 0)
    ptrace(SETOPTIONS, child, 0, OPTIONS)
    ptrace(CONT, child, 0, 0)
    steps, code, message = [], 1, ctypes.c_ulong()
    while True:
        try:
            pid, status = os.waitpid(-1, WALL)
        except ChildProcessError:
            break
        if not os.WIFSTOPPED(status):
            if pid == child:
                code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            continue
        stop, event = os.WSTOPSIG(status), status >> 16
        try:
            if event == EVENT_SECCOMP:
                ptrace(GETEVENTMSG, pid, 0, ctypes.addressof(message))
                name = names[message.value]
                steps.append(name)
                reached = len(steps)
                if what == "kill":
                    reached = steps.count(detail) if detail else reached
                    if reached == at and detail in ("", name):
                        os.kill(child, signal.SIGKILL)
                elif what == "hook" and reached == at or what == "hooks" and reached >= at:
                    os.system(detail)
                elif what == "once" and reached == at or what == "from" and reached >= at:
                    fail_call(pid, int(detail))
            quiet = event or stop in (signal.SIGTRAP, signal.SIGSTOP)
            ptrace(CONT, pid, 0, 0 if quiet else stop)
        except ProcessLookupError:
            pass  # it died of the kill meanwhile
    with open(log, "w", encoding="ascii") as out:
        out.writelines(name + "\n" for name in steps)
    sys.exit(code)


main()
