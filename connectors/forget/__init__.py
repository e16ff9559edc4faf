"""Forget rows: in the landing, in raw, in what was built of them, for good. See docs/privacy.md."""
