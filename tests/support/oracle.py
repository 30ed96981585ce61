"""Reference runtimes as objects."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.oracle_env import ensure
from tests.support.oracle_worker import read_frame, write_frame

WORKER = Path(__file__).with_name("oracle_worker.py")


class Refused(Exception):
    """The runtime does not run this model or input."""


class Oracle:
    """A runtime in a process that is started again when a model aborts it."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.python = Path(sys.executable) if runtime == "tflm" else ensure(runtime)
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs of every run: `inputs[i][n]` is input `i` of run `n`."""
        return self.timed(model, inputs)[0]

    def timed(self, model: bytes, inputs: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], NDArray[np.float64]]:
        """Outputs and seconds of every run."""
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            write_frame(process.stdin, {"model": np.frombuffer(model, np.uint8)} | {f"input{i}": array for i, array in enumerate(inputs)})
            reply = read_frame(process.stdout)
        except BrokenPipeError:
            reply = None
        if reply is None:
            self.close()
            raise Refused("the runtime aborted")
        if "error" in reply:
            raise Refused(reply["error"].tobytes().decode())
        seconds = reply.pop("seconds")
        return [reply[f"output{i}"] for i in range(len(reply))], seconds

    def _process(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            command = [str(self.python), str(WORKER), self.runtime]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return self.process

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None
