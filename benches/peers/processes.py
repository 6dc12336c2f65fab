"""Processes of the comparison: started on given cores, their CPU time and memory read from /proc."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import time


def start(cores, command, log, **more):
    """Starts a session of its own, so that `end` reaches all processes of it."""
    with open(log, "ab") as out:
        return subprocess.Popen(["taskset", "-c", cores, *map(str, command)], stdin=subprocess.DEVNULL,
                                stdout=out, stderr=out, start_new_session=True, **more)


def end(process):
    # It may have ended by itself, and all of its children.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def listens(process, port):
    """Waits until somebody listens on the port, at most ten seconds. False if nobody does."""
    for _ in range(500):
        if process.poll() is not None:
            return False
        with socket.socket() as stream:
            if stream.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


def tree(pid):
    """A process and its children."""
    found = [pid]
    for task in tasks(pid):
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def tasks(pid):
    return list(pathlib.Path(f"/proc/{pid}/task").iterdir())


def pin(pid, cores):
    """Moves all threads of a process and its children to these cores."""
    for process in tree(pid):
        for task in tasks(process):
            os.sched_setaffinity(int(task.name), cores)


def cpu_seconds(pid):
    """User and system time that a process and its children have spent."""
    spent = 0
    for process in tree(pid):
        fields = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        spent += int(fields[11]) + int(fields[12])
    return spent / os.sysconf("SC_CLK_TCK")


def resident(pid, field="VmRSS"):
    """MiB, summed over a process and its children; what they share counts for each."""
    kib = 0
    for process in tree(pid):
        for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                kib += int(line.split()[1])
    return kib / 1024


def forget_peak(pid):
    """Lets `resident(pid, "VmHWM")` begin anew. Raises OSError where that is not permitted."""
    for process in tree(pid):
        pathlib.Path(f"/proc/{process}/clear_refs").write_text("5")
