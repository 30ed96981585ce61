"""Commands on proofs: prove and verify."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nexus_edge.commands.models import check_places, distinct, import_model, reopened, show_forecast, show_left
from nexus_edge.commands.openings import check_free, save_openings, tensor_places, usable
from nexus_edge.commands.private import show_evidence
from nexus_edge.commands.result import Result, Stopwatch
from nexus_edge.errors import NexusEdgeError, ProofRejected, UsageError
from nexus_edge.files import read_bounded, write_whole
from nexus_edge.memory import peak_rss
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import ModelSecret, ModelSecretFile, OpeningFile, Proof, VerifyingKey, commit_model, compare, prove, verify
from nexus_edge.proofs.arrays import read_tensors, write_tensors
from nexus_edge.proofs.key import KEY_LIMIT
from nexus_edge.proofs.ports import Array, Port
from nexus_edge.proofs.proof import FORMAT as PROOF_FORMAT
from nexus_edge.types import NO_CONTEXT, TensorCommitment
from nexus_edge.units import show_mode, show_name, show_size, show_time


def prove_command(arguments: argparse.Namespace) -> Result:
    """`nexus-edge prove`."""
    _check_usage(arguments)
    watch = Stopwatch()
    secret = None if arguments.secret is None else ModelSecretFile(arguments.secret)
    if secret is not None:
        _check_secret(arguments, secret.read())
    with ProgressBars() as bars:
        if secret is None:
            model = import_model(arguments.model, arguments.semantics, bars, watch)
            if model.is_private:
                raise UsageError("wrong usage", f"the program in {arguments.model} is private", "add --secret")
            key = None
        else:
            model, key = reopened(arguments.model, secret, bars, watch)
        hidden_inputs = arguments.mode == "zk" and not arguments.clear_input
        hidden_outputs = arguments.mode == "zk" and arguments.hide_output
        input_places = tensor_places(arguments.input_opening, arguments.proof, "input", model.inputs) if hidden_inputs else []
        output_places = tensor_places(arguments.output_opening, arguments.proof, "output", model.outputs) if hidden_outputs else []
        given = usable(input_places)
        check_free([place for place, opening in zip(input_places, given, strict=True) if opening is None] + output_places, arguments.proof)
        inputs = read_tensors(arguments.input, model.inputs, "input")
        if key is None:
            bars("commit", 0.0)
            with watch.step("commit"):
                key = commit_model(model, arguments.weights, arguments.security, arguments.mode)
        if bars.drawn:
            bars.say(show_forecast(key))
        proved = prove(
            key,
            inputs,
            context=arguments.context or NO_CONTEXT,
            clear_inputs=arguments.clear_input,
            commit_outputs=arguments.hide_output,
            input_openings=given if hidden_inputs else None,
            threads=arguments.threads,
            progress=bars,
        )
    content = proved.proof.to_bytes()
    # A proof without its opening could be compared with nothing; so the openings are on the disk before it is written.
    openings = save_openings(input_places, proved.input_openings) + save_openings(output_places, proved.output_openings)
    if arguments.output is not None:
        write_tensors(arguments.output, model.outputs, proved.outputs, "output")
    write_whole(arguments.proof, content, "proof")
    data = {
        "digest": key.verifying_key.digest.hex(),
        "prove_ms": proved.prove_ms,
        "phases_ms": proved.phases_ms,
        "proof_bytes": len(content),
        "peak_rss_bytes": peak_rss(),
        "security_bits": proved.security_bits,
        "cells": proved.cells,
        "lookups": proved.lookups,
        "context": proved.proof.statement.context.hex(),
        "mode": arguments.mode,
        "secret": None if secret is None else {"file": str(arguments.secret), **secret.read().describe()},
        "openings": [opening.data() for opening in openings],
        **watch.fields(),
    }
    lines = [
        f"model     {data['digest']}",
        f"proof     {arguments.proof}  {show_size(len(content))}, {proved.security_bits:.1f} bits, {show_mode(arguments.mode)}",
        f"proved    in {show_time(proved.prove_ms)}, {show_size(peak_rss())} of memory",
        "phases    " + ", ".join(f"{phase} {show_time(ms)}" for phase, ms in proved.phases_ms.items()),
        *(opening.line() for opening in openings),
    ]
    if secret is not None:
        lines.append(f"secret    {arguments.secret}  {show_left(secret.read())}")
    return Result(data, lines)


def verify_command(arguments: argparse.Namespace) -> Result:
    """`nexus-edge verify`. Whatever goes wrong, `verified` is false."""
    watch = Stopwatch()
    data: dict[str, Any] = {"verified": False, "verify_ms": None, "reason": None}
    try:
        key_bytes = read_bounded(arguments.key, KEY_LIMIT, "verifying key")
        proof_bytes = read_bounded(arguments.proof, PROOF_FORMAT.limit, "proof")
        with watch.step("key"):
            key = VerifyingKey.from_bytes(key_bytes)
        inputs = None if arguments.input is None else read_tensors(arguments.input, key.inputs, "input")
        outputs = None if arguments.output is None else read_tensors(arguments.output, key.outputs, "output")
        with watch.step("evidence"):
            show_evidence(key, arguments)
        with watch.step("verify"):
            proof = Proof.from_bytes(proof_bytes)
            verify(key, proof, context=arguments.context)
        with watch.step("compare"):
            compare(
                key,
                proof,
                inputs=inputs,
                outputs=outputs,
                input_openings=[
                    OpeningFile(place.path) for place in tensor_places(arguments.opening, arguments.proof, "input", key.inputs)
                ],
                output_openings=[
                    OpeningFile(place.path) for place in tensor_places(arguments.output_opening, arguments.proof, "output", key.outputs)
                ],
            )
    except NexusEdgeError as failed:
        data["verify_ms"] = watch.ms.get("verify")
        data["reason"] = failed.reason.value if isinstance(failed, ProofRejected) else None
        return Result(data, [], failed)
    bits = key.soundness()["bits"]
    data |= {
        "verified": True,
        "verify_ms": watch.ms["verify"],
        "compare_ms": watch.ms["compare"],
        "key_ms": watch.ms["key"],
        "evidence_ms": watch.ms["evidence"],
        "security_bits": bits,
        "digest": key.digest.hex(),
        "context": proof.statement.context.hex(),
        "mode": key.mode,
        "private": key.is_private,
        "inputs": _stated(key.inputs, proof.statement.inputs),
        "outputs": _stated(key.outputs, proof.statement.outputs),
    }
    how = f"in {show_time(watch.ms['verify'])}, {bits:.1f} bits, {show_mode(key.mode)}"
    lines = [f"verified  model {data['digest']}", f"          {how}"]
    for role in ("input", "output"):
        lines += [f"{role:<9} {show_name(tensor['name'])}  {tensor['commitment'] or 'in clear'}" for tensor in data[f"{role}s"]]
    return Result(data, lines)


def _stated(ports: Sequence[Port], tensors: Sequence[TensorCommitment | Array]) -> list[dict[str, str | None]]:
    """What a statement says of inputs or outputs: a commitment, or None for one in clear."""
    return [
        {"name": port.name, "commitment": tensor.hex() if isinstance(tensor, bytes) else None}
        for port, tensor in zip(ports, tensors, strict=True)
    ]


def _check_secret(arguments: argparse.Namespace, secret: ModelSecret) -> None:
    """What a secret fixes cannot be chosen again; and begin nothing that is hopeless."""
    written = _written(arguments)
    distinct(arguments.model, arguments.secret, arguments.proof, *written)
    check_places(arguments.proof, *written)
    if arguments.weights != "committed" or arguments.mode != "zk":
        raise UsageError("wrong usage", "private weights are committed, and their proofs are zero-knowledge")
    if arguments.security not in (100, secret.security) or arguments.semantics not in (None, secret.compiled.semantics):
        raise UsageError("wrong usage", "the secret of the model fixes --security and --semantics")
    secret.check_room()


def _written(arguments: argparse.Namespace) -> list[Path]:
    """What is written beside the proof, as far as the user named it."""
    return [path for path in (arguments.output, *(arguments.input_opening or ()), *(arguments.output_opening or ())) if path is not None]


def _check_usage(arguments: argparse.Namespace) -> None:
    """What options cannot go together."""
    openings = arguments.input_opening or arguments.output_opening
    if openings:
        distinct(arguments.model, arguments.proof, *_written(arguments))
    if openings and arguments.mode == "plain":
        raise UsageError("wrong usage", "plain proofs have no openings: they hide nothing", "leave --mode plain away")
    if arguments.input_opening and arguments.clear_input:
        raise UsageError("wrong usage", "--input-opening: a clear input has no opening")
    if arguments.output_opening and not arguments.hide_output:
        raise UsageError("wrong usage", "--output-opening: the output is in clear", "add --hide-output")
