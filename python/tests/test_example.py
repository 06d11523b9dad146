from conftest import PROJECT


def test_the_example_runs_from_any_directory(python, tmp_path):
    printed = python(PROJECT / "python/examples/first_steps.py", folder=tmp_path)
    assert "student 3 owns bag, ankle boot" in printed
    assert "(8, 28, 28, 1) uint8 classes [7 8 7 8 7 8 7 8]" in printed
    assert 'rejected: this model has no class "sneekers"; did you mean "sneaker"?' in printed
    assert "15 evaluations per image: (2, 28, 28, 1)" in printed
