import io
import json
import os
import pickle
import warnings

import numpy as np
import pytest
from conftest import CAPTIONS, MODELS

import atelier


def written_by(program, tmp_path, model, *arguments):
    program("sample", model, *arguments, "--out", tmp_path / "samples.npz")
    return np.load(tmp_path / "samples.npz")


def test_an_ensemble_describes_itself(k4):
    assert (k4.students, k4.kind, k4.shape, k4.evaluations, k4.sampler) == (
        4,
        "image",
        (28, 28, 1),
        1,
        "one-step",
    )
    assert k4.class_names[7] == "sneaker" and len(k4.class_names) == 10
    assert k4.partition.cells == ((0, 1, 2), (3, 4, 5), (6, 7), (8, 9))
    assert k4.partition.method == "consecutive" and len(k4.partition.hash) == 64
    assert (k4.engine, k4.precision) == ("native", "fp32")
    assert k4.prior == (6000.0,) * 10
    assert "4 student(s), 10 classes, image 28x28x1" in repr(k4)


def test_its_description_is_read_only(k4):
    for owner, name in [(k4, "students"), (k4, "partition"), (k4.partition, "owner")]:
        with pytest.raises(AttributeError):
            setattr(owner, name, None)


def test_a_model_directory_is_an_ensemble_of_one(teacher):
    assert (teacher.students, teacher.partition.method, teacher.partition.owner) == (
        1,
        "whole",
        (0,) * 10,
    )
    assert (teacher.sampler, teacher.evaluations, teacher.engine) == ("heun", 3, "torch")


def test_classes_are_routed_to_the_students_that_own_them(k4):
    for classes in (["Sandal", 9, "0"], (5, np.int32(9), 0), np.array([5, 9, 0])):
        students = k4.route(classes)
        assert students.dtype == np.int64 and students.tolist() == [1, 3, 0]
    assert k4.route("bag").tolist() == [3] and k4.route(0).tolist() == [0]


def test_images_are_the_bytes_of_the_command(k4, program, tmp_path):
    expected = written_by(
        program, tmp_path, MODELS / "k4", "--count", 11, "--seed", 3, "--class", "0,7,9"
    )
    images = k4.sample(11, classes=["t-shirt", "sneaker", 9], seed=3)
    assert images.dtype == np.uint8 and images.shape == (11, 28, 28, 1)
    assert np.array_equal(images, expected["arr_0"])
    assert np.array_equal(k4.labels(11, classes=[0, 7, 9], seed=3), expected["labels"])


def test_classes_drawn_from_the_prior_are_those_of_the_command(k4, program, tmp_path):
    expected = written_by(program, tmp_path, MODELS / "k4", "--count", 20, "--seed", 5)
    assert np.array_equal(k4.sample(20, seed=5), expected["arr_0"])
    assert (
        np.array_equal(k4.labels(20, seed=5), expected["labels"])
        and len(set(expected["labels"])) > 5
    )


def test_a_teachers_images_are_the_bytes_of_the_command(teacher, program, tmp_path):
    how = ["--sampler", "heun", "--steps", 2, "--engine", "torch"]
    expected = written_by(
        program, tmp_path, MODELS / "teacher", "--count", 3, "--seed", 1, "--class", 8, *how
    )
    assert np.array_equal(teacher.sample(3, classes="bag", seed=1), expected["arr_0"])


def test_points_are_the_bytes_of_the_command(toy_run, program, tmp_path):
    expected = written_by(program, tmp_path, toy_run / "ensemble", "--count", 40, "--seed", 2)
    ensemble = atelier.load(toy_run / "ensemble")
    points = ensemble.sample(40, seed=2)
    assert (ensemble.kind, ensemble.shape, points.dtype, points.shape) == (
        "points",
        (2,),
        np.float32,
        (40, 2),
    )
    assert np.array_equal(points, expected["arr_0"])


def test_without_a_count_there_is_one_sample_per_class(k4):
    assert len(k4.sample()) == 1
    assert len(k4.sample(classes=[1, 2, 3])) == 3
    assert len(k4.sample(classes=range(10))) == 10


def test_samples_outlive_the_ensemble_and_may_be_written_to():
    ensemble = atelier.load(MODELS / "k4-small", engine="torch")
    images = ensemble.sample(2, seed=1)
    before = images.copy()
    del ensemble
    assert np.array_equal(images, before)
    images[:] = 0
    assert images.sum() == 0


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda k4: k4.sample(0), "0 samples"),
        (lambda k4: k4.sample(10**12), "1000000000000 samples"),
        (lambda k4: k4.sample(seed=-1), "seed is -1; it must be from 0 to 2**63-1"),
        (lambda k4: k4.sample(seed=2**63), "seed is 9223372036854775808"),
        (lambda k4: k4.sample(seed=2**64), "it must be from 0 to 2**63-1"),
        (lambda k4: k4.sample(2**70), "count is 1180591620717411303424"),
        (lambda k4: k4.sample(classes=2**70), "there is no such class"),
        (lambda k4: k4.evaluate("toy:ring", seed=-3), "seed is -3"),
        (lambda k4: atelier.load(MODELS / "teacher", sampler="heun", steps=0), "steps is 0"),
        (lambda k4: atelier.load(MODELS / "k4", device="cpu:3"), "all cores are one device"),
        (lambda k4: atelier.load(MODELS / "k4", device="cuda:x"), "the number of a GPU"),
        (lambda k4: k4.sample(4).grid(0), "columns is 0"),
        (lambda k4: k4.sample(classes=[]), "classes is empty"),
        (lambda k4: k4.sample(classes=10), "class 10 is out of range; this model knows 0 to 9"),
        (lambda k4: k4.sample(classes=[3, -1]), "class -1"),
        (lambda k4: k4.sample(classes="sneeker"), 'did you mean "sneaker"?'),
        (lambda k4: k4.route(99), "class 99"),
        (lambda k4: k4.evaluate(), "data to measure against"),
        (lambda k4: k4.evaluate("toy:ring", count=1), "at least 2"),
        (lambda k4: k4.evaluate("toy:ring", attributes="a.json"), "this model reads none"),
        (lambda k4: atelier.load(MODELS / "k4", engine="abacus"), 'no engine "abacus"'),
        (lambda k4: atelier.load(MODELS / "k4", precision="fp12"), 'no precision "fp12"'),
        (lambda k4: atelier.load(MODELS / "k4", device="gpu9"), 'no device "gpu9"'),
        (
            lambda k4: atelier.load(MODELS / "k4", sampler="heun"),
            "take the steps they were trained for",
        ),
        (lambda k4: atelier.load(MODELS / "teacher", sampler="huen"), 'did you mean "heun"?'),
        (lambda k4: atelier.load(MODELS / "teacher", steps=3), "steps need a sampler"),
    ],
)
def test_wrong_arguments_are_value_errors_with_a_message(k4, ask, words):
    with pytest.raises(ValueError) as caught:
        ask(k4)
    assert words in str(caught.value)
    assert isinstance(caught.value, atelier.Error)


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda k4: k4.sample("many"), "count is 'many'; it must be a whole number"),
        (lambda k4: k4.sample(2.0), "count is 2.0"),
        (lambda k4: k4.sample(seed=None), "seed is None; it must be a whole number"),
        (lambda k4: k4.sample(seed=1.0), "seed is 1.0"),
        (lambda k4: k4.labels(seed="1"), "seed is '1'"),
        (lambda k4: k4.sample(classes=[0.5]), "classes holds 0.5"),
        (lambda k4: k4.sample(classes=3.0), "classes is 3.0"),
        (lambda k4: k4.sample(classes=b"bag"), "classes is b'bag'"),
        (lambda k4: k4.route([None]), "classes holds None"),
        (
            lambda k4: k4.evaluate(k4.sample(4)),
            "data is of type Images; it must be a path: arrays are not read",
        ),
        (lambda k4: k4.evaluate("toy:ring", count=None), "count is None"),
        (lambda k4: k4.evaluate("toy:ring", classifier=3), "classifier is 3"),
        (lambda k4: atelier.load(7), "path is 7; it must be a path"),
        (lambda k4: atelier.load(None), "path is None"),
        (lambda k4: atelier.load(MODELS / "k4", device=0), "device is 0; it must be a str"),
        (lambda k4: atelier.load(MODELS / "k4", engine=None), "engine is None"),
        (lambda k4: atelier.load(MODELS / "teacher", sampler="heun", steps=2.5), "steps is 2.5"),
        (
            lambda k4: atelier.load(CAPTIONS, guidance="high"),
            "guidance is 'high'; it must be a number",
        ),
        (lambda k4: atelier.load(CAPTIONS).sample(prompts=b"x"), "prompts is b'x'"),
        (lambda k4: atelier.load(CAPTIONS).sample(prompts=["a bag", 3]), "prompts holds 3"),
    ],
)
def test_arguments_of_another_type_are_type_errors_in_terms_of_the_public_api(k4, ask, words):
    with pytest.raises(TypeError) as caught:
        ask(k4)
    assert (
        words in str(caught.value)
        and "self" not in str(caught.value)
        and "nanobind" not in str(caught.value)
    )


def test_numbers_of_other_libraries_are_numbers(k4):
    expected = k4.sample(2, classes=[3, 9], seed=7)
    assert np.array_equal(
        k4.sample(np.int64(2), classes=np.array([3, 9]), seed=np.uint8(7)), expected
    )
    assert np.array_equal(
        k4.sample(np.array(2), classes=(np.int32(3), "ankle boot"), seed=7), expected
    )
    assert len(k4.sample(classes=np.int64(4))) == len(k4.sample(classes=np.array(4))) == 1
    assert k4.sample(seed=2**63 - 1).shape == (1, 28, 28, 1)


def test_images_are_arrays_that_pillow_and_notebooks_show(k4):
    image = pytest.importorskip("PIL.Image")
    images = k4.sample(12, seed=1)
    assert (
        isinstance(images, np.ndarray)
        and isinstance(images, atelier.Images)
        and images.shape == (12, 28, 28, 1)
    )
    shown = image.fromarray(images[0])
    assert (shown.mode, shown.size) == ("L", (28, 28)) and np.array_equal(
        np.asarray(shown), np.asarray(images[0])[:, :, 0]
    )
    assert np.array_equal(
        np.asarray(image.fromarray(images[3][::2, ::-1])), np.asarray(images)[3, ::2, ::-1, 0]
    )
    sheet = images.grid(5)
    assert (
        sheet.shape == (3 * 30 - 2, 5 * 30 - 2, 1)
        and np.array_equal(sheet[30:58, 30:58], images[6])
        and sheet[-1, -1, 0] == 128
    )
    read = image.open(io.BytesIO(images._repr_png_()))
    assert read.format == "PNG" and np.array_equal(
        np.asarray(read), np.asarray(images.grid())[:, :, 0]
    )
    assert (images / 255.0)._repr_png_() is None and (images / 255.0).dtype == np.float64
    colours = np.zeros((2, 3, 4, 3), np.uint8).view(atelier.Images)
    assert image.fromarray(colours[1]).mode == "RGB" and colours.grid().shape == (3, 10, 3)
    assert (
        np.array_equal(pickle.loads(pickle.dumps(images)), images)
        and type(np.asarray(images)) is np.ndarray
    )


def test_the_version_is_the_programs(program):
    assert program("--version").split()[-1] == atelier.__version__


def test_a_directory_that_is_not_a_valid_model_is_an_error_that_names_it(tmp_path):
    with pytest.raises(atelier.Error, match="there is no such model"):
        atelier.load(tmp_path / "nowhere")
    (tmp_path / "ensemble.json").write_text('{"version": 1, "K": "four"')
    with pytest.raises(atelier.Error, match="ensemble.json") as caught:
        atelier.load(tmp_path)
    assert not isinstance(caught.value, ValueError)


def test_a_run_is_loaded_as_its_ensemble_and_other_paths_are_identified_in_the_error(tmp_path):
    (tmp_path / "ensemble").symlink_to(MODELS / "k4-small")
    assert atelier.load(tmp_path).hash == atelier.load(MODELS / "k4-small").hash
    for path, words in [
        (MODELS, "is a folder of models"),
        (MODELS / "teacher" / "model.safetensors", "holds the weights of"),
        ("somebody/some-model", "huggingface-cli download"),
    ]:
        with pytest.raises(atelier.Error, match=words):
            atelier.load(path)


def test_paths_need_not_be_utf8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(atelier.Error, match=r"caf\\xe9"):
        atelier.load(folder)
    folder.symlink_to(MODELS / "k4")
    assert len(atelier.load(folder).sample(1)) == 1


def test_metrics_are_those_measured_of_the_same_weights(k4, tmp_path):
    recorded = json.loads((MODELS / "evaluation.json").read_text())["models"]["K=4 students"]
    assert k4.metrics == recorded["metrics"] and k4.metrics["feature_distance"]["mean"] > 0
    assert k4.hash == recorded["protocol"]["model"]["hash"]
    small = atelier.load(MODELS / "k4-small")
    assert small.metrics and small.metrics != k4.metrics
    (tmp_path / "k4").symlink_to(MODELS / "k1")
    assert atelier.load(MODELS / "k4" / "students" / "0").metrics == {}, (
        "nobody measured a student alone"
    )


def test_an_evaluation_is_the_commands(toy_run, program, tmp_path):
    data = "toy:ring"
    printed = program(
        "evaluate",
        toy_run / "ensemble",
        "--data",
        data,
        "--count",
        150,
        "--seed",
        4,
        "--seeds",
        2,
        "--out",
        tmp_path,
        "--json",
    )
    expected = json.loads(printed)["models"][str(toy_run / "ensemble")]
    del expected["latency"]
    assert atelier.load(toy_run / "ensemble").evaluate(data, 150, 4, seeds=2) == expected
    assert len(expected["metrics"]["sliced_wasserstein"]["values"]) == 2


def test_what_cannot_be_measured_is_an_error(k4, toy_run):
    with pytest.raises(atelier.Error, match="no-classifier"):
        k4.evaluate("toy:ring", 10, classifier="no-classifier")
    with pytest.raises(atelier.Error, match="are for images"):
        atelier.load(toy_run / "ensemble").evaluate(reference="statistics.npz", count=10)


def test_prompts_are_read_routed_and_drawn_as_the_command_does(captions, program, tmp_path):
    assert captions.reads_prompts and (captions.students, captions.shape, captions.evaluations) == (
        4,
        (28, 28, 1),
        1,
    )
    assert "4 student(s), prompts, image 28x28x1" in repr(captions)
    prompt = "two small white sneakers on black"
    expected = written_by(
        program, tmp_path, CAPTIONS, "--prompt", prompt, "--count", 3, "--seed", 4
    )
    images = captions.sample(3, prompts=prompt, seed=4)
    assert images.dtype == np.uint8 and np.array_equal(images, expected["arr_0"])
    routed = json.loads(
        program("route", CAPTIONS, "--prompt", prompt, "--prompt", "a big bag", "--json")
    )
    assert captions.route(prompts=[prompt, "a big bag"]).tolist() == [
        one["student"] for one in routed
    ]
    assert captions.sample(prompts=["a big bag", "a dress"], seed=1).shape == (2, 28, 28, 1)
    assert len(captions.hash) == 64 and captions.metrics["feature_distance"]["mean"] > 0


def test_captions_are_judged_by_their_attributes(captions, tmp_path):
    for i, image in enumerate(captions.sample(24, prompts="a bag", seed=1)):
        (tmp_path / f"{i}.png").write_bytes(image._repr_png_())
        (tmp_path / f"{i}.txt").write_text(f"a large white {'bag' if i % 2 else 'dress'} on black")
    attributes = CAPTIONS / "classifiers/attributes.json"
    metrics = captions.evaluate(tmp_path, 8, attributes=attributes)["metrics"]
    for name in ("garment", "amount", "colour", "mean"):
        assert 0 <= metrics[f"{name}_agreement"]["mean"] <= 1
    assert 0.5 < metrics["paraphrase_stability"]["mean"] <= 1
    assert "mean_agreement" not in captions.evaluate(tmp_path, 8)["metrics"]


def test_a_prompt_that_is_too_long_raises_a_warning(captions):
    long = "a bag" + " and one" * 40
    with pytest.warns(UserWarning, match="changes nothing"):
        one = captions.sample(prompts=long + " red", seed=1)
    with pytest.warns(UserWarning):
        assert np.array_equal(one, captions.sample(prompts=long + " blue", seed=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captions.sample(prompts="a bag", seed=1)


def test_classes_and_prompts_are_not_confused(captions, k4):
    for wrong in (
        lambda: captions.sample(classes=1),
        lambda: captions.sample(2),
        lambda: captions.route([1]),
        lambda: captions.labels(2),
        lambda: captions.sample(prompts=[]),
        lambda: k4.sample(prompts="a bag"),
        lambda: k4.route(prompts="a bag"),
        lambda: k4.route(),
        lambda: captions.evaluate(reference="y"),
    ):
        with pytest.raises(atelier.UsageError):
            wrong()
    with pytest.raises(atelier.UsageError, match="guidance"):
        atelier.load(MODELS / "k4", guidance=2.0)
