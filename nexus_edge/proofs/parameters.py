"""Parameter sets of proofs by their names, as peers write them: `zk-100`, `zk-128`, `plain-100`, `plain-128`."""

from dataclasses import dataclass
from typing import Final

from nexus_edge.errors import BadInput
from nexus_edge.types import ProofMode, SecurityBits


@dataclass(frozen=True)
class ParameterSet:
    """What a proof shows beside its statement, and how many bits of security it has."""

    mode: ProofMode
    security: SecurityBits

    def __str__(self) -> str:
        return f"{self.mode}-{self.security}"

    @classmethod
    def parse(cls, name: str) -> "ParameterSet":
        """The set of that name. Raises `BadInput`.

        >>> ParameterSet.parse("zk-100")
        ParameterSet(mode='zk', security=100)
        """
        found = _BY_NAME.get(name)
        if found is None:
            raise BadInput("there is no such parameter set", f"{name!r}; there are {', '.join(_BY_NAME)}")
        return found


_SETS: Final = (ParameterSet("zk", 100), ParameterSet("zk", 128), ParameterSet("plain", 100), ParameterSet("plain", 128))
_BY_NAME: Final = {str(one): one for one in _SETS}
