"""Fill windows of the past: a plan, and workers that share it. See docs/backfills.md."""
