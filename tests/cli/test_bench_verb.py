import json


def test_rows_as_json(model, run):
    result = run("bench", model, "--seconds", 0.02, "--threads", 1, "--engine", "torch", "--json", "-")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert isinstance(rows, list)
    for row in rows:
        assert (row["engine"], row["precision"], row["threads"]) == ("torch", "fp32", 1)
        assert isinstance(row["batch"], int)
        for name in ("latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "images_per_second"):
            assert row[name] > 0
        assert row["machine"]["cores"] >= 1
    assert set(rows[0]["split_ms"]) == {"decode", "preprocess", "backbone", "inversion", "post"}


def test_a_table_for_people(model, run):
    options = ("--seconds", 0.02, "--size", "48x64", "--engine", "torch", "--threads", 1)
    result = run("bench", model, *options)
    titles = result.stdout.splitlines()[1]
    assert titles.split()[:6] == ["engine", "precision", "device", "threads", "size", "batch"]
    assert "48x64" in result.stdout
    assert result.stdout.count("(most)") == 1
    assert "ms of one image: decode " in result.stdout


def test_what_cannot_be_measured_is_one_line(model, run, one_line, tmp_path):
    result = run("bench", model, "--engine", "onnxruntime")
    assert result.exit_code == 2
    one_line(result, "onnxruntime", "invad export")
    result = run("bench", tmp_path / "none")
    assert result.exit_code == 1
    one_line(result, "none")
    result = run("bench", model, "--size", "big")
    assert result.exit_code == 2
    one_line(result, "big")
