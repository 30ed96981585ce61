"""Models and data that are not part of the repository."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("NEXUS_EDGE_SHARED", Path(__file__).resolve().parents[3] / "shared"))
MODELS = sorted((SHARED / "models").glob("*/*.tflite"))
