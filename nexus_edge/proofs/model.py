"""Models: from a `.tflite` file to a checked integer program that can be run exactly, and committed to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nexus_edge.errors import MalformedModel
from nexus_edge.files import read_bounded
from nexus_edge.proofs import _native
from nexus_edge.proofs.container import MIB, ContainerError, Format, Section
from nexus_edge.proofs.importers.tflite import import_tflite
from nexus_edge.proofs.native_errors import translated
from nexus_edge.proofs.ports import Array, Port, to_integers
from nexus_edge.types import PrivateForm

FORMAT = Format(b"NXEMODEL", 1, (Section("program", 256 * MIB), Section("weights", 4096 * MIB)))
"""What `nexus-edge model import` writes: the canonical program and its weights."""


class Model:
    """A checked integer program with its weights.

    >>> from nexus_edge.data import demo_digits, demo_model
    >>> model = Model.from_tflite(demo_model(), name="digits")
    >>> [(port.name, port.shape) for port in model.inputs]
    [('image', (1, 8, 8, 1))]
    >>> image, label = demo_digits()[0]
    >>> (output,) = model.run([image])
    >>> int(output.argmax()) == label
    True
    """

    def __init__(self, native: _native.Model) -> None:
        self.native = native
        description = native.describe()
        self.inputs = tuple(Port.from_native(port) for port in description["inputs"])
        self.outputs = tuple(Port.from_native(port) for port in description["outputs"])
        self.is_private: bool = description["log_bounds"] is not None
        """Whether the program says nothing about the weights."""

    @classmethod
    def from_tflite(cls, data: bytes, name: str = "", semantics: str | None = None, private: PrivateForm | None = None) -> "Model":
        """Import a `.tflite` file; `semantics` names the reference kernels, by default the model's own.

        With `private` nothing of weights and biases is in the program. Raises `UnsupportedModel` or `MalformedModel`.
        """
        with translated():
            return cls(import_tflite(data, name, semantics, private))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Model":
        """Load what `to_bytes` made. Everything is checked again."""
        try:
            return cls(_native.Model.load(*FORMAT.decode(data)))
        except (ContainerError, _native.NativeError) as broken:
            raise MalformedModel("the program cannot be loaded", str(broken)) from broken

    def to_bytes(self) -> bytes:
        """The canonical program and its weights, as a file."""
        return FORMAT.encode(self.native.program_bytes, self.native.weights_bytes())

    def run(self, inputs: Sequence[Array], threads: int = 0) -> list[Array]:
        """Exact outputs, one array a port, in the ports' types; `threads` 0 means all.

        Raises `BadInput`.
        """
        with translated():
            outputs = self.native.run(to_integers(self.inputs, inputs), threads)
        return [port.from_integers(output) for port, output in zip(self.outputs, outputs, strict=True)]

    def describe(self) -> dict[str, Any]:
        """Ports, operators, shapes, semantics and sizes."""
        described = self.native.describe()
        described["inputs"] = [port.describe() for port in self.inputs]
        described["outputs"] = [port.describe() for port in self.outputs]
        return described


def load_model(path: Path | str, semantics: str | None = None, private: PrivateForm | None = None, name: str | None = None) -> Model:
    """The model in a file: `.tflite`, or what `Model.to_bytes` made. Its name is by default the file's."""
    path = Path(path)
    data = read_bounded(path, FORMAT.limit, "model")
    if data.startswith(FORMAT.magic):
        model = Model.from_bytes(data)
        if semantics not in (None, model.describe()["semantics"]):
            raise MalformedModel("the model's semantics are fixed", f"{path} is an imported program", "choose semantics when importing")
        if private is not None:
            _check_form(path, model, private)
        return model
    return Model.from_tflite(data, path.stem if name is None else name, semantics, private)


def _check_form(path: Path, model: Model, form: PrivateForm) -> None:
    """Raise unless an imported program is private, and with the bounds that are asked for."""
    has = model.describe()["log_bounds"]
    if has is None:
        raise MalformedModel("the model's weights are not private", f"{path} is an imported public program", "use the .tflite file")
    wanted = [form.log_bounds] * len(has) if isinstance(form.log_bounds, int) else form.log_bounds
    if wanted is not None and list(wanted) != has:
        raise MalformedModel(
            "the model's bounds are fixed", f"{path} is an imported program with bounds {has}", "choose bounds when importing"
        )
