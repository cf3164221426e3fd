#!/usr/bin/python3
"""Runs a program behind the system call filter of a systemd unit: unit.py UNIT PROGRAM ARG...

Needs Debian's python3-seccomp, and systemd-analyze for what the unit's groups hold."""

import os
import subprocess
import sys

import seccomp


def calls(word):
    """The system calls that a word of SystemCallFilter stands for."""
    if not word.startswith("@"):
        return {word}
    text = subprocess.run(["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True).stdout
    lines = (line.strip() for line in text.splitlines()[1:])
    return set().union(*(calls(line) for line in lines if line and not line.startswith("#")))


allowed = calls("@default")
for line in open(sys.argv[1], encoding="utf-8"):
    if line.startswith("SystemCallFilter="):
        words = line.split("=", 1)[1].strip()
        named = set().union(*(calls(word) for word in words.lstrip("~").split()))
        allowed = allowed - named if words.startswith("~") else allowed | named
rules = seccomp.SyscallFilter(seccomp.ERRNO(1))
known = 0
for call in sorted(allowed):
    try:
        rules.add_rule(seccomp.ALLOW, call)
        known += 1
    except RuntimeError:  # of another architecture
        pass
if known < 100:
    sys.exit(f"only {known} system calls allowed: is {sys.argv[1]} a unit with SystemCallFilter?")
rules.load()
os.execvp(sys.argv[2], sys.argv[2:])
