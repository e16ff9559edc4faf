"""Compare raw with its source, and heal what differs. See docs/reconcile.md."""
