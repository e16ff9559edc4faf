"""The status page: one file that tells how the data is, from the warehouse alone (docs/status-page.md)."""
