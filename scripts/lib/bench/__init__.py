"""What scripts/bench measures and how; docs/bench.md explains it to readers."""
