"""The status page: one file that tells how the data is, with nothing but the warehouse behind it (docs/status-page.md)."""
