"""What this machine can do: devices, child processes that work on them, and the models that are here."""

from nexus_edge.compute.errors import ChildFailed, Failure, ModelDamaged, StoreError, StoreFull
from nexus_edge.compute.library import ModelLibrary
from nexus_edge.compute.load import Load
from nexus_edge.compute.machine import Device, devices, memory_available
from nexus_edge.compute.pool import Pool
from nexus_edge.compute.process import Child, Task
from nexus_edge.compute.record import Forecast, ModelRecord
from nexus_edge.compute.store import ModelStore

__all__ = [
    "Child",
    "ChildFailed",
    "Device",
    "Failure",
    "Forecast",
    "Load",
    "ModelDamaged",
    "ModelLibrary",
    "ModelRecord",
    "ModelStore",
    "Pool",
    "StoreError",
    "StoreFull",
    "Task",
    "devices",
    "memory_available",
]
