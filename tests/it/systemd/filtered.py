"""Runs a command under a filter of system calls, as systemd does for SystemCallFilter= with SystemCallErrorNumber=EPERM.

    filtered.py NAME,NAME,… PROGRAM [ARGUMENT…]
"""

import ctypes
import os
import sys

ALLOW, FAIL_WITH_EPERM = 0x7FFF0000, 0x00050000 | 1

seccomp = ctypes.CDLL("libseccomp.so.2")
seccomp.seccomp_init.restype = ctypes.c_void_p
seccomp.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
seccomp.seccomp_load.argtypes = [ctypes.c_void_p]

names, command = sys.argv[1].split(","), sys.argv[2:]
filter_ = seccomp.seccomp_init(FAIL_WITH_EPERM)
for name in names:
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    # Below zero it is one of another architecture.
    if number >= 0 and seccomp.seccomp_rule_add(filter_, ALLOW, number, 0) != 0:
        sys.exit(f"can't allow {name}")
if seccomp.seccomp_load(filter_) != 0:
    sys.exit("the filter can't be loaded")
os.execvp(command[0], command)
