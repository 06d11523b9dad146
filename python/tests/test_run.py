import shutil

import pytest

import atelier


def test_a_run_directory_is_read_completely(toy_run):
    run = atelier.read_run(toy_run)
    assert set(run.stages) == {
        "teacher",
        "partition",
        "pairs",
        "students/0/dm",
        "students/0/adm",
        "students/1/dm",
        "students/1/adm",
    }
    assert all(stage.finished for stage in run.stages.values())
    assert (
        run.stages["teacher"].settings["teacher"]["steps"] == 20
        and run.stages["teacher"].result["seconds"] > 0
    )
    assert run.partition.students == 2 and len(run.partition.cells) == 2
    assert run.evaluation["order"] == ["teacher", "K=2 students"]
    assert run.report.read_text().lower().startswith("<!doctype html>")


def test_a_stage_shows_its_log(toy_run):
    stages = atelier.read_run(toy_run).stages
    assert [row["step"] for row in stages["teacher"].metrics] == [5, 10, 15, 20]
    assert all(row["loss"] > 0 for row in stages["teacher"].metrics)
    assert stages["pairs"].metrics == []


def test_what_a_run_made_can_be_loaded(toy_run):
    run = atelier.read_run(toy_run)
    ensemble = atelier.load(run.ensemble)
    assert ensemble.partition.hash == run.partition.hash
    assert ensemble.metrics == run.evaluation["models"]["K=2 students"]["metrics"]
    assert atelier.load(run.teacher).metrics == run.evaluation["models"]["teacher"]["metrics"]


def test_a_run_that_is_half_done_is_read_as_far_as_it_is(toy_run, tmp_path):
    shutil.copytree(toy_run / "teacher", tmp_path / "teacher")
    run = atelier.read_run(tmp_path)
    assert (
        set(run.stages) == {"teacher"}
        and run.partition is None
        and run.evaluation is None
        and run.ensemble is None
        and run.report is None
    )


def test_a_directory_that_is_not_a_run_or_is_broken_is_an_error_that_names_the_file(
    toy_run, tmp_path
):
    with pytest.raises(atelier.Error, match="is no run directory"):
        atelier.read_run(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(toy_run, broken)
    (broken / "teacher/training/metrics.jsonl").write_text(
        '{"step": 5, "loss": 1.0}\n{"step": 10, "lo'
    )
    with pytest.raises(atelier.Error, match="metrics.jsonl:2"):
        atelier.read_run(broken).stages["teacher"].metrics
    (broken / "partition.json").write_text(
        '{"students": 2, "method": "file", "owner": [0, 0], "hash": "0"}'
    )
    with pytest.raises(atelier.Error, match="partition.json"):
        atelier.read_run(broken)
    (broken / "partition.json").unlink()
    (broken / "pairs/stage.json").write_text("[]")
    with pytest.raises(atelier.Error, match="pairs/stage.json"):
        atelier.read_run(broken)
