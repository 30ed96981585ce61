"""Refusals that depend on the moment say when to ask again."""

import ast
from pathlib import Path

import nexus_edge

ROOT = Path(nexus_edge.__file__).parent
MOMENTARY = {"BUSY", "RATE", "DRAINING"}


def test_busy_rate_and_draining_come_with_a_time() -> None:
    found = 0
    for file in ROOT.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Refusal" and call.args):
                continue
            code = call.args[0]
            if isinstance(code, ast.Attribute) and code.attr in MOMENTARY:
                found += 1
                assert any(keyword.arg == "retry_ms" for keyword in call.keywords), f"{file.relative_to(ROOT)}:{call.lineno}"
    assert found > 10
