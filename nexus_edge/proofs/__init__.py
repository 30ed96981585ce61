"""Proofs that an exact int8 program was run on a committed input."""

from nexus_edge.proofs import native_loader

# First of all: whoever imports `_native`, from here or elsewhere, gets the build that this processor can run.
_native = native_loader.load()
