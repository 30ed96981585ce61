"""Commands on private models: register, link, and verify both."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nexus_edge.commands.models import check_no_secret, check_places, distinct, reopened, show_left
from nexus_edge.commands.result import Result, Stopwatch
from nexus_edge.errors import NexusEdgeError, OpeningError, ProofRejected, UsageError
from nexus_edge.files import read_bounded, write_whole
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import (
    EvidenceRecord,
    Link,
    ModelSecretFile,
    Registration,
    VerifyingKey,
    link,
    register,
    verify_link,
    verify_registration,
)
from nexus_edge.proofs.key import KEY_LIMIT
from nexus_edge.proofs.registration import LINK, MOST_LINKED, REGISTRATION
from nexus_edge.units import show_size, show_time


def model_register(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model register`."""
    distinct(arguments.model, arguments.key, arguments.secret, arguments.out)
    check_places(arguments.out)
    watch = Stopwatch()
    public, secret = _read_pair(arguments)
    secret.read().check_room()
    with ProgressBars() as bars:
        _, key = reopened(arguments.model, secret, bars, watch)
        with watch.step("register"):
            registration = register(key, threads=arguments.threads, progress=bars)
    content = registration.to_bytes()
    write_whole(arguments.out, content, "registration")
    after = secret.read()
    data = {
        "digest": public.digest.hex(),
        "registration_bytes": len(content),
        "secret": {"file": str(arguments.secret), **after.describe()},
        **watch.fields(),
    }
    lines = [
        f"model         {data['digest']}",
        f"registration  {arguments.out}  {show_size(len(content))}, in {show_time(watch.ms['register'])}; for everyone who verifies",
        f"secret        {arguments.secret}  {show_left(after)}",
    ]
    return Result(data, lines)


def model_link(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model link`."""
    keys, secrets = arguments.new_key, arguments.new_secret
    if len(keys) != len(secrets) or len(keys) > MOST_LINKED:
        raise UsageError(
            "wrong usage", f"{len(keys)} new keys and {len(secrets)} new secrets", f"name 1 to {MOST_LINKED} of each, in pairs"
        )
    distinct(arguments.model, arguments.key, arguments.secret, arguments.out, *keys, *secrets)
    check_places(arguments.out, *keys, *secrets)
    for path in secrets:
        check_no_secret(path)
    watch = Stopwatch()
    public, secret = _read_pair(arguments)
    secret.read().check_room(for_link=True)
    with ProgressBars() as bars:
        _, key = reopened(arguments.model, secret, bars, watch)
        with watch.step("commit_again"):
            fresh = [key.committed_again() for _ in keys]
        with watch.step("link"):
            proof = link(key, fresh, threads=arguments.threads, progress=bars)
    # The rows of the registered commitment are counted. Now the new secrets, with theirs; then what may be shown.
    files = [other.save_secret(path) for other, path in zip(fresh, secrets, strict=True)]
    for other, path in zip(fresh, keys, strict=True):
        write_whole(path, other.verifying_key.to_bytes(), "verifying key")
    content = proof.to_bytes()
    write_whole(arguments.out, content, "link")
    after = secret.read()
    data = {
        "digest": public.digest.hex(),
        "link_bytes": len(content),
        "secret": {"file": str(arguments.secret), **after.describe()},
        "fresh": [
            {"key": str(path), "secret": {"file": str(where), **file.read().describe()}}
            for path, where, file in zip(keys, secrets, files, strict=True)
        ],
        **watch.fields(),
    }
    lines = [
        f"model     {data['digest']}",
        f"link      {arguments.out}  {show_size(len(content))}, in {show_time(watch.ms['link'])}; for everyone who verifies under the new keys",
        *(f"key       {path}" for path in keys),
        *(f"secret    {where}  keep it; {show_left(file.read())}" for where, file in zip(secrets, files, strict=True)),
        f"secret    {arguments.secret}  {show_left(after)}",
    ]
    return Result(data, lines)


def model_verify_registration(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model verify-registration`."""

    def verified(key: VerifyingKey, record: EvidenceRecord) -> list[Path]:
        return [record.verify_registration(key, read_registration(arguments.registration))]

    return _verified(arguments, "registration", verified)


def model_verify_link(arguments: argparse.Namespace) -> Result:
    """`nexus-edge model verify-link`."""

    def verified(key: VerifyingKey, record: EvidenceRecord) -> list[Path]:
        return record.verify_link(key, read_link(arguments.link))

    return _verified(arguments, "link", verified)


def _verified(arguments: argparse.Namespace, noun: str, verified: Callable[[VerifyingKey, EvidenceRecord], list[Path]]) -> Result:
    """Whatever goes wrong, `verified` is false."""
    watch = Stopwatch()
    data: dict[str, Any] = {"verified": False, "verify_ms": None, "reason": None}
    try:
        with watch.step("key"):
            key = VerifyingKey.from_bytes(read_bounded(arguments.key, KEY_LIMIT, "verifying key"))
        with watch.step("verify"):
            records = verified(key, EvidenceRecord(arguments.state))
    except NexusEdgeError as failed:
        data["verify_ms"] = watch.ms.get("verify")
        data["reason"] = failed.reason.value if isinstance(failed, ProofRejected) else None
        return Result(data, [], failed)
    data |= {"verified": True, "digest": key.digest.hex(), "records": [str(path) for path in records], **watch.fields()}
    lines = [f"verified  {noun} of model {data['digest']}", f"          in {show_time(watch.ms['verify'])}"]
    return Result(data, lines + [f"recorded  {path}" for path in records])


def show_evidence(key: VerifyingKey, arguments: argparse.Namespace) -> None:
    """Show a key what the user gave with a proof, and what is on record."""
    if arguments.registration is not None:
        verify_registration(key, read_registration(arguments.registration))
    if arguments.link is not None:
        verify_link(key, read_link(arguments.link))
    if not (key.native.registered and key.native.linked):
        EvidenceRecord(arguments.state).admit(key)


def read_registration(path: Path) -> Registration:
    """The registration in a file."""
    return Registration.from_bytes(read_bounded(path, REGISTRATION.limit, "registration"))


def read_link(path: Path) -> Link:
    """The link in a file."""
    return Link.from_bytes(read_bounded(path, LINK.limit, "link"))


def _read_pair(arguments: argparse.Namespace) -> tuple[VerifyingKey, ModelSecretFile]:
    """Key and secret of the registered commitment."""
    key = VerifyingKey.from_bytes(read_bounded(arguments.key, KEY_LIMIT, "verifying key"))
    secret = ModelSecretFile(arguments.secret)
    known = secret.read()
    if (key.digest, key.commitment) != (known.digest, known.commitment):
        raise OpeningError("the secret does not fit the key", f"it is of model {known.digest.hex()}, commitment {known.commitment.hex()}")
    if not known.is_registered:
        why = "this commitment is linked to the registered one"
        raise OpeningError("another secret is needed", why, "use key and secret that `nexus-edge model commit --private` wrote")
    return key, secret
