"""One file per source system; `headwater new-source` writes one."""
