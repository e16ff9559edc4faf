"""Build on Spark: raw from the lake, then the dbt project on its target `spark`, in one session.

    python -m deployments.spark.run --lake file:///lake --landing file:///landing -- build

What follows `--` goes to dbt. Settings of Spark come from where `spark-submit` and `SPARK_CONF_DIR` have them; without
any, Spark runs in this process, with its tables in a folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

from deployments.spark.raw_tables import Lake, LakeError, raw_table, streams

PROJECT = Path(__file__).parents[2] / "dbt"


def local_session(home: Path) -> SparkSession:
    """Spark in this process: two cores, two gigabytes, nothing that others can reach."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    home.mkdir(parents=True, exist_ok=True)
    metastore = f"jdbc:derby:;databaseName={home / 'metastore'};create=true"
    settings = {
        "spark.driver.memory": "2g",
        # Most of what a small build costs is compiling: half of it is left out.
        "spark.driver.extraJavaOptions": (
            f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dderby.stream.error.file={home / 'derby.log'}"
        ),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        "spark.sql.warehouse.dir": str(home / "tables"),
        "spark.hadoop.javax.jdo.option.ConnectionURL": metastore,
        # As many pieces as there are cores: for each of the two hundred that are usual, there is a task to start.
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    }
    builder = SparkSession.builder.master("local[2]").appName("headwater")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.enableHiveSupport().getOrCreate()


def build_raw(spark: SparkSession, lake: Lake) -> dict[str, int]:
    """Make every raw table of the lake anew; the rows of each.

    A table is written beside the old one, which it then takes the place of.
    """
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.ansi.enabled", "true")
    counts = {}
    for stream in streams(spark, lake):
        schema, name = f"raw_{stream['source']}", stream["stream"]
        spark.sql(f"create schema if not exists `{schema}`")
        spark.sql(f"drop table if exists `{schema}`.`{name}__new`")
        raw_table(spark, lake, stream).write.format("parquet").saveAsTable(f"`{schema}`.`{name}__new`")
        spark.sql(f"drop table if exists `{schema}`.`{name}`")
        spark.sql(f"alter table `{schema}`.`{name}__new` rename to `{schema}`.`{name}`")
        counts[f"{schema}.{name}"] = spark.table(f"`{schema}`.`{name}`").count()
    return counts


def run_dbt(arguments: list[str]) -> bool:
    """Run dbt in this process, which gives it this process's session; whether all went well."""
    from dbt.cli.main import dbtRunner

    folders = ["--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target", "spark"]
    outcome = dbtRunner().invoke([*arguments, *folders])
    if outcome.exception is not None:
        print(outcome.exception, file=sys.stderr)  # noqa: T201 - this is a command
    return bool(outcome.success)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="deployments.spark.run", description=__doc__)
    parser.add_argument("--lake", required=True, help="URL of the lake, as Spark reads it")
    parser.add_argument("--landing", required=True, help="URL of the landing, as Spark reads it")
    parser.add_argument("--home", type=Path, help="folder for tables and metastore, for Spark in this process")
    parser.add_argument("dbt", nargs="*", help="what dbt is to do; without it, raw is built and no more")
    given = parser.parse_args(arguments)
    spark = (
        local_session(given.home.resolve()) if given.home else SparkSession.builder.enableHiveSupport().getOrCreate()
    )
    try:
        for table, rows in build_raw(spark, Lake(given.lake, given.landing)).items():
            print(f"{table} has {rows:,} rows.", flush=True)  # noqa: T201 - as above
        return 0 if not given.dbt or run_dbt(given.dbt) else 1
    except LakeError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 2
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())
