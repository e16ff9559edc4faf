"""The same pages into PostgreSQL with dlt: `PYTHON rest_dlt.py URL POSTGRES_URL`, by a Python that has `dlt[postgres]`.

dlt is no dependency of Headwater: HEADWATER_BENCH_DLT names a Python that has it, or nothing is compared.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time


def main() -> None:
    url, warehouse = sys.argv[1:]
    import dlt
    from dlt.sources.rest_api import rest_api_source

    source = rest_api_source(
        {
            "client": {"base_url": url},
            "resource_defaults": {"primary_key": "id", "write_disposition": "replace"},
            "resources": [
                {
                    "name": "orders",
                    "endpoint": {
                        "path": "orders",
                        "data_selector": "data",
                        "params": {"limit": 1000},
                        "paginator": {"type": "offset", "limit": 1000, "total_path": "total"},
                    },
                }
            ],
        }
    )
    with tempfile.TemporaryDirectory() as home:
        pipeline = dlt.pipeline(
            "bench_rest", pipelines_dir=home, dataset_name="dlt_bench",
            destination=dlt.destinations.postgres(warehouse),
        )  # fmt: skip
        begun = time.monotonic()
        pipeline.run(source)
        wall = time.monotonic() - begun
        rows = pipeline.last_trace.last_normalize_info.row_counts["orders"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"rows": rows, "wall_s": wall, "peak_mb": round(peak, 1)}) + "\n")


if __name__ == "__main__":
    main()
