"""Scores in a DataFrame of Spark, by its own Python processes."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from invad import runtime
from invad.errors import ArtifactError, ConfigError

pyspark = pytest.importorskip("pyspark", reason="needs invad[spark], 400 MB, which CI leaves out")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
SRC = Path(runtime.__file__).parents[2]


@pytest.fixture(scope="module")
def spark():
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SRC), *filter(None, [os.environ.get("PYTHONPATH")])]))
        builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.driver.bindAddress", "127.0.0.1").getOrCreate()
        yield session
        session.stop()


def test_rows_have_the_scores_of_the_bundle(spark, bundle, write_parts, tmp_path):
    from invad.integrations.spark import score_udf

    paths = [str(one.path) for one in write_parts(tmp_path / "good", 6)]
    paths += [str(one.path) for one in write_parts(tmp_path / "bad", 2, first=20, defect=True)]
    lost = str(tmp_path / "lost.png")
    frame = spark.createDataFrame([(path,) for path in [*paths, lost]], ["path"]).repartition(2)
    score = score_udf(bundle, category="part")
    rows = {row.path: row.invad for row in frame.select("path", score("path").alias("invad")).collect()}
    expected = runtime.load(bundle).predict(paths, category="part")
    assert [rows[path].score for path in paths] == pytest.approx([one.score for one in expected])
    assert [rows[path].decision for path in paths] == [one.decision for one in expected]
    assert (rows[lost].score, rows[lost].decision) == (None, None)
    assert "lost.png" in rows[lost].error
    content = spark.createDataFrame([(Path(paths[0]).read_bytes(),), (None,)], ["image"])
    of_bytes, of_nothing = (row.invad for row in content.select(score("image").alias("invad")).collect())
    assert of_bytes.score == rows[paths[0]].score
    assert of_nothing.error


def test_a_bundle_that_is_none_is_refused_before_the_job(bundle, tmp_path):
    from invad.integrations.spark import score_udf

    with pytest.raises(ArtifactError, match="no such bundle"):
        score_udf(tmp_path / "none")
    with pytest.raises(ConfigError, match="no limits for category 'bolt'; its categories are: part, wide"):
        score_udf(bundle, category="bolt")
