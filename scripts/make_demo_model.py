"""Make the model that ships with the package, `nexus_edge/data/digits.tflite`, and its test images.

Training depends on how the machine's BLAS rounds, so the trained float weights are kept beside the script; the file is made from them,
and every machine makes the same bytes. `--train` trains anew (needs the extra `demo-model`).
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from demo_model.network import Parameters
from demo_model.quantisation import quantise, quantise_pixels
from demo_model.tflite_file import encode
from toolchain import ROOT

FLOATS = Path(__file__).parent / "demo_model" / "trained.npz"
DATA = ROOT / "nexus_edge" / "data"


def main() -> int:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", action="store_true", help="train anew and replace the kept floats and test images")
    if parser.parse_args().train:
        retrain()
    (DATA / "digits.tflite").write_bytes(make())
    return 0


def make() -> bytes:
    """The `.tflite` file, from the kept floats."""
    with np.load(FLOATS) as kept:
        floats = dict(kept)
    ranges = {name: floats.pop(name) for name in ("hidden1", "hidden2", "logits")}
    return encode(quantise(Parameters(**floats), ranges))


def retrain() -> None:
    """Train, and keep the floats, the activations' ranges and the held-out digits."""
    from demo_model.training import accuracy, largest, load_digits, train

    training, held_out = load_digits()
    parameters = train(training)
    print(
        f"float accuracy: {accuracy(parameters, training):.4f} on the training digits, {accuracy(parameters, held_out):.4f} on those held out"
    )
    np.savez(FLOATS, allow_pickle=False, **parameters.arrays(), **largest(parameters, training))
    np.save(DATA / "digits.npy", quantise_pixels(held_out.pixels))
    np.save(DATA / "labels.npy", held_out.labels.astype(np.uint8))


if __name__ == "__main__":
    sys.exit(main())
