"""Importers: model files to checked programs."""

from nexus_edge.proofs.importers.tflite import import_tflite

__all__ = ["import_tflite"]
