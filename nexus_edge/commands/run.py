"""Commands that change something through the agent, and what came of it: `run`, `answer`, `cancel`, `drain`, `stop`."""

import argparse
import asyncio
import contextlib
import io
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

from nexus_edge.api import words
from nexus_edge.api.client import AdminClient, ask
from nexus_edge.api.models import HEADERS, INPUT_BYTES, DrainRequest, JobView, RunRequest
from nexus_edge.commands.asking import sockets_of
from nexus_edge.commands.result import Result
from nexus_edge.commands.views import peer_name
from nexus_edge.config.quantities import CREDITS, DURATIONS, parse
from nexus_edge.errors import AgentUnavailable, BadInput, FileError, JobFailed, NexusEdgeError, UsageError
from nexus_edge.files import check_writable, read_bounded, write_whole
from nexus_edge.progress import ProgressBars
from nexus_edge.types import MicroCredits
from nexus_edge.units import NOT_VERIFIED, VERIFIED, show_name

CANCEL_S: Final = 3.0
"""For telling the agent that the answer is not wanted any more."""
SETTLE_S: Final = 2.0
"""For the worker's signature on the payment, which takes one round trip."""
LOOK_S: Final = 0.05
UNKNOWN: Final = 64 * "0"
"""For the digest of a model that the agent has yet to see."""
SHOWN: Final = 16
"""Elements of an answer that are printed: more are a matter for a file."""


def run(arguments: argparse.Namespace) -> Result:
    """`nexus-edge run`: returns when the answer is verified here, or will not come."""
    is_digest = _is_digest(arguments.model)
    request = RunRequest(
        model=arguments.model.lower() if is_digest else UNKNOWN,
        input=_input(arguments.input),
        max_price_ucr=_quantity(arguments.max_price, CREDITS, "--max-price", MicroCredits),
        deadline_ms=_quantity(arguments.deadline, DURATIONS, "--deadline", int),
        worker=arguments.worker,
    )
    if arguments.output is not None:
        check_writable(arguments.output, "output")  # before anything is paid for
    sockets = sockets_of(arguments)
    started = time.monotonic()
    with ProgressBars() as bars:
        job, answer = asyncio.run(_run(sockets, None if is_digest else Path(arguments.model), request, bars))
    took_ms = 1000 * (time.monotonic() - started)
    data = {**job.model_dump(mode="json"), "verified": job.state == "verified", "output": None, "took_ms": took_ms}
    return _shown(job, answer, data, arguments.output, [f"took       {words.time(took_ms)}"])


def answer(arguments: argparse.Namespace) -> Result:
    """`nexus-edge answer`: that of a job which was begun before."""
    if arguments.output is not None:
        check_writable(arguments.output, "output")

    async def fetch(agent: AdminClient) -> tuple[JobView, bytes]:
        job = await agent.job(arguments.job)
        return job, await agent.output(job.id) if job.state == "verified" else b""

    job, content = ask(sockets_of(arguments), fetch)
    data = {**job.model_dump(mode="json"), "verified": job.state == "verified", "output": None}
    return _shown(job, content, data, arguments.output, [])


def _shown(job: JobView, answer: bytes, data: dict[str, Any], output: Path | None, more: list[str]) -> Result:
    """Receipt and answer of a job that was verified, or why there is none."""
    if not data["verified"]:
        return Result(data, [NOT_VERIFIED, "", *_receipt(job)], _failure(job))
    if output is not None:
        try:
            write_whole(output, answer, "output")
        except FileError as failed:
            hint = f"`nexus-edge answer {job.short_id} --output FILE` writes it elsewhere"
            return Result(data, [VERIFIED, "", *_receipt(job)], FileError(failed.what, failed.why, failed.hint or hint))
        data["output"] = str(output)
    return Result(data, [VERIFIED, "", *_receipt(job), f"answer     {_answer(answer, output)}", *more])


def cancel(arguments: argparse.Namespace) -> Result:
    """`nexus-edge cancel`."""
    job = ask(sockets_of(arguments), lambda agent: agent.cancel(arguments.job))
    return Result(job.model_dump(mode="json"), [f"{job.short_id}   {job.state}{f': {job.reason}' if job.reason else ''}"])


def drain(arguments: argparse.Namespace) -> Result:
    """`nexus-edge drain`."""
    if arguments.resume and arguments.stop:
        raise UsageError("wrong usage", "--resume and --stop are opposites")
    request = DrainRequest(on=not arguments.resume, stop=arguments.stop)
    done = ask(sockets_of(arguments), lambda agent: agent.drain(request))
    return Result(done.model_dump(mode="json"), [done.text])


def stop(arguments: argparse.Namespace) -> Result:
    """`nexus-edge stop`."""
    done = ask(sockets_of(arguments), lambda agent: agent.shutdown())
    return Result(done.model_dump(mode="json"), [done.text])


async def _run(sockets: Any, model: Path | None, request: RunRequest, bars: ProgressBars) -> tuple[JobView, bytes]:
    async with AdminClient(sockets) as agent:
        if model is not None:
            bars("import", 0.0)
            request = request.model_copy(update={"model": await _brought(agent, model)})
        job = await agent.submit(request)
        said: tuple[str, ...] = ()
        try:
            async with contextlib.aclosing(agent.watch(job.id)) as states:
                async for job in states:
                    _show(job, bars)
                    said = _say_why(job, said)
        except asyncio.CancelledError:
            await _withdraw(agent, job)
            raise
        except AgentUnavailable as gone:
            hint = f"{job.short_id} goes on when the agent is up again: `nexus-edge answer {job.short_id}` shows what came of it"
            raise AgentUnavailable(gone.what, gone.why, hint) from gone
        if job.state != "verified":
            return job, b""
        return await _settled(agent, job), await agent.output(job.id)


async def _settled(agent: AdminClient, job: JobView) -> JobView:
    """The job with both signatures, if the worker's comes soon. It is paid for in any case."""
    until = time.monotonic() + SETTLE_S
    while not job.settled and time.monotonic() < until:
        await asyncio.sleep(LOOK_S)
        job = await agent.job(job.id)
    return job


async def _withdraw(agent: AdminClient, job: JobView) -> None:
    """Whoever interrupts the command does not want to pay for the rest."""
    try:
        async with asyncio.timeout(CANCEL_S):
            left = await agent.cancel(job.id)
        print(f"{left.short_id}: {left.state}{f', {left.reason}' if left.reason else ''}", file=sys.stderr)
    except (NexusEdgeError, TimeoutError):
        print(f"{job.short_id} may go on: `nexus-edge cancel {job.short_id}` stops it", file=sys.stderr)


def _say_why(job: JobView, said: tuple[str, ...]) -> tuple[str, ...]:
    """While nobody takes it, or its worker is silent, whoever waits is told why; what has been said."""
    reasons = () if job.ended else job.reasons if job.state == "waiting" else (job.reason,)
    kinds = tuple(sorted(reason.partition(":")[0] for reason in reasons if reason))
    if not kinds or kinds == said:
        return said
    for reason in reasons:
        print(f"waiting: {show_name(reason, 200)}", file=sys.stderr)
    return kinds


def _show(job: JobView, bars: ProgressBars) -> None:
    if job.state == "running" and job.phase:
        bars(job.phase, job.fraction or 0.0)
    elif not job.ended:
        bars(job.state, 0.0)


async def _brought(agent: AdminClient, path: Path) -> str:
    """The digest of a file's model. The agent may be another user's, so it is given what is in the file, not its name."""
    try:
        with path.open("rb") as file:
            return (await agent.import_model(file, path.stem)).digest
    except OSError as failed:
        raise FileError("the model cannot be read", f"{path}: {failed.strerror or failed}") from failed


def _is_digest(text: str) -> bool:
    """Whether a model is named by its digest, not by a file."""
    if Path(text).is_file():
        return False
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return True
    raise FileError("there is no such model", f"{text} is neither a file nor a digest of 64 hexadecimal digits")


def _input(path: Path) -> bytes:
    data = read_bounded(path, INPUT_BYTES + HEADERS, "input")
    if not data.startswith((b"\x93NUMPY", b"PK\x03\x04")):
        raise BadInput("the input cannot be used", f"{path} is neither an .npy nor an .npz file", "numpy.save and numpy.savez write them")
    return data


def _quantity(text: str | None, units: dict[str, int], option: str, kind: Any) -> Any:
    if text is None:
        return None
    try:
        value = parse(text, units)
    except ValueError as wrong:
        raise UsageError("wrong usage", f"{option}: {wrong}") from None
    if value == 0:
        raise UsageError("wrong usage", f"{option} is zero")
    return kind(value)


def _receipt(job: JobView) -> list[str]:
    who = peer_name(job.peer) or "nobody"
    lines = [f"job        {job.short_id}  {show_name(job.model)} {job.digest[:8]}", f"worker     {who}"]
    if job.run_ms is not None:
        lines.append(f"executed   {words.time(job.run_ms)}   by {who}")
    if job.prove_ms is not None:
        size = "" if job.proof_bytes is None else f": {words.size(job.proof_bytes)}"
        lines.append(f"proved     {words.time(job.prove_ms)}   by {who}{size}")
    if job.verify_ms is not None:
        lines.append(f"verified   {words.time(job.verify_ms)}   here, without running the model")
    if job.price_ucr is not None and job.state == "verified":
        signed = "signed by both" if job.settled else "signed here, on its way"
        lines.append(f"paid       {words.credit(job.price_ucr, signed=False)} cr   {signed}")
    lines += [f"{'not by' if number == 0 else '':<11}{show_name(reason, 200)}" for number, reason in enumerate(job.reasons)]
    return lines


def _failure(job: JobView) -> NexusEdgeError:
    reason = show_name(job.reason, 400)
    if job.state in ("waiting", "running", "due"):
        return JobFailed("there is no verified answer yet", f"the job is {job.state}", "ask again later")
    return JobFailed(
        "there is no verified answer", f"the job {'was ' if job.state == 'cancelled' else ''}{job.state}{f': {reason}' if reason else ''}"
    )


def _answer(data: bytes, output: Path | None) -> str:
    if output is not None:
        return str(output)
    if not data.startswith(b"\x93NUMPY"):
        return f"{words.size(len(data))} of several arrays: --output keeps them"
    import numpy as np

    array = np.load(io.BytesIO(data), allow_pickle=False)
    shown = " ".join(str(value) for value in array.reshape(-1)) if array.size <= SHOWN else "--output keeps it"
    return f"{array.dtype} {list(array.shape)}  {shown}"
