"""What the commands of `nexus-edge` do. Each module is imported when one of its commands runs: `verify` needs nothing of an agent."""
