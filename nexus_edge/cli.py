"""The `nexus-edge` command."""


def main() -> int:
    """Run one command; returns the exit status."""
    return 0
