"""Commands on models, proofs and openings: files in, files out."""

import argparse
from pathlib import Path
from typing import Any

from nexus_edge.arguments.options import (
    command,
    context,
    file,
    key_options,
    model_argument,
    model_option,
    opening,
    owned_model,
    pair,
    private,
    proofs_count,
    semantics,
    state,
    subcommands,
    threads,
)


def add_models(commands: Any) -> None:
    """`model ...`."""
    of_model = subcommands(commands, "model", "import, inspect, commit and register models")

    parser = command(of_model, "import", "models:model_import", "check a .tflite file and write its integer program")
    model_argument(parser)
    file(parser, "--output", "where to write the program (.nxm); every --model takes it in place of the .tflite", required=True)
    private(parser)

    parser = command(of_model, "inspect", "models:model_inspect", "operators, shapes, semantics and the forecast of a proof")
    model_argument(parser)
    key_options(parser)
    private(parser)

    parser = command(of_model, "commit", "models:model_commit", "write the verifying key")
    model_argument(parser)
    key_options(parser)
    private(parser)
    file(parser, "--key", "where to write the verifying key", required=True)
    file(parser, "--secret", "where to write the secret of a private model; what proofs open is counted in it: keep it, and never copy it")

    parser = command(
        of_model, "register", "private:model_register", "prove that the weights of a private model are what its program assumes"
    )
    owned_model(parser)
    file(parser, "--out", "where to write the registration, for everyone who verifies", required=True)
    threads(parser)

    parser = command(
        of_model, "link", "private:model_link", "make a fresh commitment of a private model, and prove that it holds the registered weights"
    )
    owned_model(parser)
    pair(parser, "--new-key", "where to write the key of the fresh commitment")
    pair(parser, "--new-secret", "where to write its secret")
    file(parser, "--out", "where to write the link, for everyone who verifies under the new key", required=True)
    threads(parser)

    parser = command(
        of_model, "verify-registration", "private:model_verify_registration", "verify the registration of a private model, and record it"
    )
    file(parser, "--key", "a key of the model", required=True)
    file(parser, "--registration", "the registration", required=True)
    state(parser)

    parser = command(
        of_model, "verify-link", "private:model_verify_link", "verify that fresh commitments hold the registered weights, and record it"
    )
    file(parser, "--key", "the key of a fresh commitment, or of the registered one", required=True)
    file(parser, "--link", "the link", required=True)
    state(parser)


def add_proofs(commands: Any) -> None:
    """`infer`, `prove`, `commit`, `opening ...`, `verify`, `demo`."""
    parser = command(commands, "infer", "models:infer", "run a model exactly, without a proof")
    model_option(parser)
    file(parser, "--input", "the input: .npy, or .npz by tensor name", required=True)
    file(parser, "--output", "where to write the output", required=True)
    threads(parser)

    parser = command(commands, "prove", "proving:prove_command", "run a model and prove it")
    model_option(parser)
    key_options(parser)
    file(parser, "--secret", "the secret of a private model")
    file(parser, "--input", "the input: .npy, or .npz by tensor name", required=True)
    file(parser, "--output", "where to write the output")
    file(parser, "--proof", "where to write the proof", required=True)
    parser.add_argument("--context", type=context, metavar="HEX32", help="32 bytes to bind the proof to, in hexadecimal (default: zeros)")
    parser.add_argument("--clear-input", action="store_true", help="put the input into the statement instead of a commitment to it")
    parser.add_argument(
        "--hide-output",
        "--commit-output",
        action="store_true",
        help="put a commitment to the output into the statement instead of the output",
    )
    opening(
        parser,
        ["--input-opening"],
        "the opening of the input's commitment: used if it exists, else a fresh one is written there (default: beside the proof)",
    )
    opening(parser, ["--output-opening"], "where to write the opening of a hidden output (default: beside the proof)")
    threads(parser)

    parser = command(commands, "commit", "openings:commit_command", "commit to an input ahead of any proof, without showing it")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model", type=Path, metavar="FILE", help="a model that takes the input: a .tflite file, or what `model import` wrote"
    )
    source.add_argument("--key", type=Path, metavar="FILE", help="or its verifying key")
    semantics(parser)
    parser.add_argument("--security", type=int, choices=(100, 128), help="security of the proofs in bits (default: 100, or the key's)")
    file(parser, "--input", "the input: .npy, or .npz by tensor name", required=True)
    opening(parser, ["--opening"], "where to write the opening", required=True)

    of_opening = subcommands(commands, "opening", "show and share openings of commitments")

    parser = command(of_opening, "inspect", "openings:opening_inspect", "what an opening is of, and how many proofs are left")
    parser.add_argument("opening", type=Path, metavar="OPENING", help="the opening")

    parser = command(of_opening, "share", "openings:opening_share", "make an opening for someone else, and take its proofs off this one")
    parser.add_argument("opening", type=Path, metavar="OPENING", help="the opening to take from")
    file(parser, "--to", "where to write the new opening", required=True)
    parser.add_argument(
        "--proofs", type=proofs_count, required=True, metavar="N", help="how many proofs it is to be good for; 0 for one who only verifies"
    )

    parser = command(commands, "verify", "proving:verify_command", "verify a proof")
    file(parser, "--key", "the verifying key", required=True)
    file(parser, "--proof", "the proof", required=True)
    file(parser, "--input", "also check that the proof is about this input")
    file(parser, "--output", "also check that the proven output is this one")
    opening(parser, ["--opening", "--input-opening"], "the opening of the input's commitment (default: beside the proof)")
    opening(parser, ["--output-opening"], "the opening of a hidden output (default: beside the proof)")
    parser.add_argument("--context", type=context, metavar="HEX32", help="also check that the proof is bound to these 32 bytes")
    file(parser, "--registration", "the registration of a private model (default: what is on record)")
    file(parser, "--link", "the link of a private model's fresh commitment (default: what is on record)")
    state(parser)

    parser = command(commands, "demo", "demo:demo", "start two agents here: one job, proved, verified and paid, and a forged proof refused")
    parser.add_argument("--no-mdns", action="store_true", help="tell the agents where they are, instead of multicast")
    # `./run` says how long it took to install.
    parser.add_argument("--built", type=int, default=0, help=argparse.SUPPRESS)
