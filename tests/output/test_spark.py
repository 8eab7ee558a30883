"""Spark writes a shard, and reads what is left of it. Needs PySpark and a Java runtime."""

import datetime
from pathlib import Path

import numpy as np
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.output.shard_writer import write_shard
from sf_ray.storage.location import Location

pytestmark = pytest.mark.spark


@pytest.mark.parametrize("times", ["INT96", "TIMESTAMP_MICROS", "TIMESTAMP_MILLIS"])
def test_spark_reads_its_own_rows_and_ifd(tmp_path: Path, times: str) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="needs PySpark")
    spark = (
        sql.SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    spark.conf.set("spark.sql.parquet.outputTimestampType", times)
    spark.conf.set("spark.sql.parquet.int96RebaseModeInWrite", "CORRECTED")
    rows = [
        (f"Say {number}.", {"k": [number]}, datetime.datetime(year, 12, 31, 23, 59))
        for number, year in enumerate([9999, 1677, 2024, 1900])
    ]
    frame = spark.createDataFrame(
        rows, "instruction string, m map<string, array<int>>, at timestamp"
    )
    frame.coalesce(1).write.parquet(str(tmp_path / "corpus"))
    corpus = plan_corpus(Location(str(tmp_path / "corpus")))
    keep = np.array([True, False, True, True])
    out = Location(str(tmp_path / "out"))
    write_shard(corpus.location, corpus.shards[0], np.arange(4.0), keep, out, "ifd")
    read = spark.read.parquet(str(tmp_path / "out"))
    assert [row["ifd"] for row in read.collect()] == [0.0, 2.0, 3.0]
    assert read.drop("ifd").schema == frame.schema
    before = spark.read.parquet(str(tmp_path / "corpus")).collect()
    assert read.drop("ifd").collect() == [before[0], before[2], before[3]]
    assert read.filter("ifd > 2.5").count() == 1
