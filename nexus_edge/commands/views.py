"""`status`, `jobs`, `peers`, `proofs`: what the agent shows, in lines and columns."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Final

from nexus_edge.api import words
from nexus_edge.api.client import ask
from nexus_edge.api.models import (
    CertificateView,
    DeviceView,
    FleetView,
    IntegrityView,
    Jobs,
    JobView,
    PeerRef,
    Peers,
    PeersSummary,
    PeerView,
    Proofs,
    ProofView,
    Snapshot,
    Today,
    WorkView,
)
from nexus_edge.commands.asking import sockets_of
from nexus_edge.commands.result import Result
from nexus_edge.errors import AgentUnavailable
from nexus_edge.units import show_name
from nexus_edge.wire.limits import SKEW_SHOWN_MS

LABEL: Final = 18
TEXT: Final = 50
"""Cells: with a label and an amount of ten they are 78, which every terminal has."""
NAME: Final = 12

STATES: Final = {
    "starting": "▸ starting", "ready": "● ready", "serving": "● serving", "draining": "▼ draining", "drained": "○ drained",
    "alone": "▲ alone", "degraded": "▲ degraded", "stopping": "▼ stopping",
}  # fmt: skip
REASON: Final = 48
"""Of why a job waits, in a table."""
JOB_STATES: Final = {
    "waiting": "○ waiting", "running": "▸ running", "due": "◇ proof due", "proved": "◆ proved", "verified": "✓ verified",
    "refused": "✗ refused", "failed": "✗ failed", "cancelled": "‖ cancelled",
}  # fmt: skip
PROOF_STATES: Final = {"proving": "▸ proving", "proved": "◆ proved", "verified": "✓ verified", "refused": "✗ refused"}
PEER_STATES: Final = {"new": "○", "up": "●", "suspect": "▲", "down": "○", "excluded": "✗"}
REACH: Final = {"both": "⇄ both", "out": "→ out", "in": "← in", "none": "none"}
FOUND: Final = {"mdns": "mDNS", "dht": "DHT", "static": "hand", "caller": "itself", "exchange": "peers"}


def status(arguments: argparse.Namespace) -> Result:
    """`nexus-edge status`. Its error says that the agent answers, but does not take work."""
    snapshot = ask(sockets_of(arguments), lambda agent: agent.snapshot())
    node = snapshot.node
    well = node.state in ("ready", "serving")
    error = (
        None
        if well
        else AgentUnavailable(
            f"the agent is {node.state}", node.why, "`nexus-edge drain --resume` takes work again" * (node.state == "drained")
        )
    )
    return Result(snapshot.model_dump(mode="json"), status_lines(snapshot), error)


def jobs(arguments: argparse.Namespace) -> Result:
    """`nexus-edge jobs`."""
    found = Jobs(jobs=ask(sockets_of(arguments), lambda agent: agent.jobs()))
    head = ("job", "at", "model", "for / by", "state", "left", "cr")
    lines = table(head, [_job(job) for job in found.jobs], right=(5, 6))
    return Result(found.model_dump(mode="json"), lines or ["No jobs yet. `nexus-edge run MODEL INPUT` asks for one."])


def peers(arguments: argparse.Namespace) -> Result:
    """`nexus-edge peers`."""
    found = Peers(peers=ask(sockets_of(arguments), lambda agent: agent.peers()))
    head: tuple[str, ...] = ("", "peer", "has", "by", "ms", "reach", "verified", "cr")
    rows = [_peer(peer) for peer in found.peers]
    if any(peer.fleet for peer in found.peers):
        head = (*head, "fleet")
        rows = [(*row, _fleet_of(peer)) for row, peer in zip(rows, found.peers, strict=True)]
    lines = table(head, rows, right=(4, 6, 7))
    return Result(
        found.model_dump(mode="json"), lines or ["No peers yet. `nexus-edge up --peer HOST:PORT` dials one that mDNS does not find."]
    )


def proofs(arguments: argparse.Namespace) -> Result:
    """`nexus-edge proofs`."""
    found = Proofs(proofs=ask(sockets_of(arguments), lambda agent: agent.proofs()))
    head = ("state", "proof", "model", "for / by", "prove", "verify", "of re-run")
    lines = table(head, [_proof(proof) for proof in found.proofs], right=(4, 5, 6))
    return Result(found.model_dump(mode="json"), lines or ["No proofs yet."])


def status_lines(snapshot: Snapshot) -> list[str]:
    """One screen."""
    node = snapshot.node
    name = f"{node.name} {node.short_id}".strip()
    lines = [f"{name:<{LABEL - 1}} {STATES[node.state]}   up {words.time(node.uptime_ms)}   version {node.version}"]
    if node.why:
        lines.append(f"{'':<{LABEL}}{node.why}")
    lines += _today(snapshot.today)
    lines.append(_line("work", _work(snapshot.work)))
    lines += [_line(device.name, _device(device)) for device in snapshot.devices]
    lines.append(_line("peers", _peers(snapshot.peers)))
    lines += _labelled("fleets", (*map(_fleet, snapshot.fleets), *map(_certificate, snapshot.certificates)))
    if snapshot.reputation is not None:
        lines.append(_line("reputation", f"{snapshot.reputation.median:.2f} median of {snapshot.reputation.peers} peers"))
    if snapshot.ledger is not None:
        lines.append(_line("ledger", f"{_integrity(snapshot.ledger)}, net {words.credit(snapshot.credit.net_ucr)} cr"))
    lines += _labelled("agents", (endpoint.url for endpoint in snapshot.endpoints))
    needs = (
        f"{'✗' if one.level == 'error' else '▲'} {words.clock(one.at)} {one.text}" + (f"   → {one.about}" if one.about else "")
        for one in snapshot.attention
    )
    lines += _labelled("needs you", needs)
    return [_harmless(line) for line in lines]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """Aligned columns, two spaces apart; nothing without rows."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(_harmless("  ".join(cells).rstrip()))
    return lines


def peer_name(peer: PeerRef | None) -> str:
    """The name if it is this peer's alone, and always the beginning of its id."""
    return "" if peer is None else f"{show_name(peer.name, NAME)} {peer.short_id}".strip()


def _today(today: Today) -> list[str]:
    made = f"◆ {words.count(today.proved)} for peers today"
    if today.proved:
        made += f", {words.count(today.verified_by_peers)} verified by them"
    checked = f"✓ {words.count(today.verified)} for us today" + (f", ✗ {words.count(today.refused)} refused" if today.refused else "")
    lines = [
        _line("proved", made, f"{words.credit(today.earned_ucr)} cr"),
        _line("verified", checked, f"{words.credit(-today.spent_ucr)} cr"),
    ]
    if today.verified and today.rerun_ms:
        how = "" if today.rerun_measured else ", estimated"
        share = words.share(today.verify_ms / today.rerun_ms)
        lines.append(_line("", f"in {words.time(today.verify_ms)}, {share} of the {words.time(today.rerun_ms)} of re-running{how}"))
    return lines


def _work(work: WorkView) -> str:
    parts = [f"{work.running} running", f"{work.waiting} waiting"]
    if work.due:
        parts.append(f"{work.due} due")
    if work.next_free_ms is not None:
        parts.append(f"next free in {words.left(work.next_free_ms)}" if work.next_free_ms else "free now")
    return ", ".join(parts)


def _device(device: DeviceView) -> str:
    parts = [words.percent(device.load).rjust(5), words.of(device.memory_used, device.memory_total).rjust(14)]
    if device.temperature_c is not None:
        parts.append(f"{device.temperature_c:.0f} °C")
    if device.power_w is not None:
        limit = "" if device.power_limit_w is None else f"/{device.power_limit_w:.0f}"
        parts.append(f"{device.power_w:.0f}{limit} W")
    return "   ".join(parts)


def _peers(peers: PeersSummary) -> str:
    if not peers.online and not peers.excluded:
        return "none yet"
    parts = [f"{peers.both_ways} both ways"]
    if peers.one_way:
        parts.append(f"{peers.one_way} one-way")
    if peers.excluded:
        parts.append(f"{peers.excluded} excluded")
    return f"{peers.online}: {', '.join(parts)}"


def _fleet(fleet: FleetView) -> str:
    """One that we serve."""
    bound = "without a bound" if fleet.line_ucr is None else f"of {words.credit(fleet.line_ucr, signed=False)} cr"
    members = "1 member" if fleet.members == 1 else f"{fleet.members} members"
    return f"{show_name(fleet.name, NAME)}: {members}, {words.credit(fleet.exposure_ucr, signed=False)} cr drawn {bound}"


def _certificate(one: CertificateView) -> str:
    """That we are in one."""
    until = "" if one.until is None else f" until {words.day(one.until)}"
    return f"this node in {show_name(one.name, NAME) or one.file}{until}" + (f"   ▲ {one.problem}" if one.problem else "")


def _fleet_of(peer: PeerView) -> str:
    return "" if peer.fleet_until is None else f"{show_name(peer.fleet, NAME)} until {words.day(peer.fleet_until)}"


def _integrity(integrity: IntegrityView) -> str:
    if not integrity.sound:
        return "✗ broken: " + (integrity.faults[0] if integrity.faults else "see `nexus-edge ledger verify`")
    return (
        f"✓ empty at {words.clock(integrity.checked_at)}"
        if integrity.last is None
        else f"✓ unbroken #{integrity.first}\N{EN DASH}{integrity.last}"
    )


def _job(job: JobView) -> tuple[str, ...]:
    state = JOB_STATES[job.state]
    if job.state == "running" and job.phase:
        state = f"▸ {job.phase}" + ("" if job.fraction is None else f" {words.percent(job.fraction)}")
    elif job.reason and job.reason != job.state:
        state += f" {job.reason}"
    elif job.state == "waiting" and job.reasons:
        state += f" {show_name(job.reasons[0], REASON)}"
    amount = None if job.price_ucr is None else {"for": job.price_ucr, "by": -job.price_ucr, "own": 0}[job.direction]
    return (
        job.short_id,
        words.clock(job.asked_at),
        show_name(job.model, 16),
        _who(job.direction, job.peer),
        state,
        "" if job.ended else words.left(job.eta_ms),
        words.credit(amount),
    )


def _peer(peer: PeerView) -> tuple[str, ...]:
    return (
        PEER_STATES[peer.state],
        f"{show_name(peer.name, NAME)} {peer.short_id}".strip(),
        show_name(peer.has, 16) or words.UNKNOWN,
        ", ".join(FOUND.get(source, source) for source in peer.found_by) or words.UNKNOWN,
        words.UNKNOWN if peer.rtt_ms is None else f"{peer.rtt_ms:.1f}" if peer.rtt_ms < 10 else f"{peer.rtt_ms:.0f}",
        _reach(peer),
        f"{peer.verified}/{peer.given}" if peer.given else words.UNKNOWN,
        words.credit(peer.balance_ucr),
    )


def _reach(peer: PeerView) -> str:
    """Who can dial whom, and whether its clock is far from ours."""
    if peer.state == "excluded":
        return "excluded"
    skew_ms = peer.skew_ms or 0
    return REACH[peer.reach] + (f", clock {skew_ms / 1000:+.0f} s" if abs(skew_ms) > SKEW_SHOWN_MS else "")


def _proof(proof: ProofView) -> tuple[str, ...]:
    return (
        f"{PROOF_STATES[proof.state]} {proof.reason}".rstrip(),
        proof.short_id,
        show_name(proof.model, 16),
        _who(proof.direction, proof.peer),
        words.time(proof.prove_ms),
        words.time(proof.verify_ms),
        words.share(proof.of_rerun),
    )


def _who(direction: str, peer: PeerRef | None) -> str:
    return f"{direction:<3} {peer_name(peer)}".strip()


def _line(label: str, text: str, amount: str = "") -> str:
    return f"{show_name(label, LABEL - 1):<{LABEL}}" + (f"{text:<{TEXT}}{amount:>10}" if amount else text)


def _labelled(label: str, texts: Iterable[str]) -> list[str]:
    return [_line("" if number else label, text) for number, text in enumerate(texts)]


def _harmless(line: str) -> str:
    """Peers' names and texts are in it: a terminal must not obey them."""
    return show_name(line, 1000)
