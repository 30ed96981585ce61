"""Starts nodes without the second that importing takes: a process that has everything imported, and forks.

Each line on standard input is a JSON object for `tests.support.node`, and comes with three descriptors: standard input, output and error of
the node. The answer is its process id. It has no threads, so that what it forks is as good as new.
"""

import json
import os
import signal
import socket
import sys

from tests.support import node

LINE = 1 << 16


def main() -> None:
    """Fork on demand until the test ends."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: whoever asked watches the pipes
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, LINE, 3)
        if not data:
            return
        child = os.fork()
        if child == 0:
            _become(control, descriptors, data)
        for descriptor in descriptors:
            os.close(descriptor)
        control.sendall(child.to_bytes(4, "big"))


def _become(control: socket.socket, descriptors: list[int], data: bytes) -> None:
    """A node; does not return."""
    status = 1
    try:
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        sys.stdin = os.fdopen(0, "r")
        sys.stdout = os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w")
        node.main(json.loads(data))
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
