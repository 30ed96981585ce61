"""A verifier's own record of the registrations and links that it has verified, so that it needs each file once.

One small file for each, named after the model digest, and for a link also after the commitment. The content follows from what is recorded and
from the version of the proofs, so a record that says anything else counts for nothing. The only way to a record is a verification that
succeeded. It is as trustworthy as the folder: whoever can write there decides what this verifier believes.
"""

import json
import os
from pathlib import Path

from nexus_edge.errors import FileError
from nexus_edge.files import read_bounded, write_whole
from nexus_edge.proofs import _native
from nexus_edge.proofs.key import VerifyingKey
from nexus_edge.proofs.registration import Link, Registration, verify_link, verify_registration
from nexus_edge.types import ModelDigest, WeightsCommitment

NOUN = "record of verified registrations"
_LIMIT = 4096


def state_folder() -> Path:
    """The user's folder of this program's state: in `XDG_STATE_HOME`, by default in `~/.local/state`."""
    chosen = Path(os.environ.get("XDG_STATE_HOME", ""))
    if chosen.is_absolute():
        return chosen / "nexus-edge"
    try:
        return Path.home() / ".local" / "state" / "nexus-edge"
    except RuntimeError as homeless:
        raise FileError(f"there is no {NOUN}", str(homeless), "set XDG_STATE_HOME, or name a folder with --state") from homeless


class EvidenceRecord:
    """The record in a folder, by default the user's."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = state_folder() if folder is None else folder

    def verify_registration(self, key: VerifyingKey, registration: Registration) -> Path:
        """`nexus_edge.proofs.verify_registration`, and remember it. Returns the record."""
        verify_registration(key, registration)
        return self._write(key.digest, None)

    def verify_link(self, key: VerifyingKey, link: Link) -> list[Path]:
        """`nexus_edge.proofs.verify_link`, and remember it for every commitment. Returns the records."""
        verify_link(key, link)
        return [self._write(key.digest, commitment) for commitment in link.commitments]

    def admit(self, key: VerifyingKey) -> None:
        """Let the key accept proofs as far as its registration and link are on record."""
        if not key.native.registered and self._has(key.digest, None):
            key.native.admit_registration(key.digest)
        if not key.native.linked and key.commitment is not None and self._has(key.digest, key.commitment):
            key.native.admit_link(key.digest, key.commitment)

    def _path(self, digest: ModelDigest, commitment: WeightsCommitment | None) -> Path:
        if commitment is None:
            return self.folder / "registrations" / f"{digest.hex()}.json"
        return self.folder / "links" / digest.hex() / f"{commitment.hex()}.json"

    def _write(self, digest: ModelDigest, commitment: WeightsCommitment | None) -> Path:
        path = self._path(digest, commitment)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as failed:
            raise FileError(f"the {NOUN} cannot be written", f"{path.parent}: {failed.strerror or failed}") from failed
        write_whole(path, _content(digest, commitment), NOUN)
        return path

    def _has(self, digest: ModelDigest, commitment: WeightsCommitment | None) -> bool:
        path = self._path(digest, commitment)
        return path.is_file() and read_bounded(path, _LIMIT, NOUN) == _content(digest, commitment)


def _content(digest: ModelDigest, commitment: WeightsCommitment | None) -> bytes:
    what = {"verified": "registration" if commitment is None else "link", "protocol": _native.protocol, "model": digest.hex()}
    if commitment is not None:
        what["commitment"] = commitment.hex()
    return json.dumps(what).encode() + b"\n"
