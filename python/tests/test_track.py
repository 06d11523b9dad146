"""atelier.track, with a parser of event files and stand-ins for the clients of trackers."""

import json
import struct
import sys
import types

import pytest

from atelier import track


def png(width=2, height=3):
    """The beginning of a grey PNG; no more of it is read here."""
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + header + bytes(8)


@pytest.fixture
def run(tmp_path):
    """A run whose teacher and one student have logged, and drawn samples."""
    for stage in ("teacher", "students/0/dm"):
        training = tmp_path / "run" / stage / "training"
        (training / "samples").mkdir(parents=True)
        rows = [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25, "probe_distance": 1.5}]
        (training / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (training / "samples" / "step-000020.png").write_bytes(png())
        settings = {"seed": 3, "dm": {"batch": 64}}
        (tmp_path / "run" / stage / "stage.json").write_text(json.dumps({"settings": settings}))
    return tmp_path / "run"


def records(path):
    """The records of an event file, whose checksums are compared bit by bit."""

    def crc(data):
        value = 0xFFFFFFFF
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = value >> 1 ^ (0x82F63B78 * (value & 1))
        value ^= 0xFFFFFFFF
        return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF

    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        assert struct.unpack_from("<I", data, at + 8) == (crc(data[at : at + 8]),)
        record = data[at + 12 : at + 12 + length]
        assert len(record) == length
        assert struct.unpack_from("<I", data, at + 12 + length) == (crc(record),)
        at += 16 + length
        yield record


def fields(message):
    """A protobuf message as a list of (field, value)."""

    def varint(at):
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value, at

    found, at = [], 0
    while at < len(message):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
        elif key & 7 == 1:
            value, at = struct.unpack_from("<d", message, at)[0], at + 8
        else:
            assert key & 7 == 2
            length, at = varint(at)
            value, at = message[at : at + length], at + length
        found.append((key >> 3, value))
    return found


def test_checksums_are_those_of_published_vectors():
    def unmasked(data):
        value = (track.masked_crc(data) - 0xA282EAD8) & 0xFFFFFFFF
        return (value >> 17 | value << 15) & 0xFFFFFFFF

    assert unmasked(b"123456789") == 0xE3069283
    assert unmasked(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


def test_tensorboard_gets_the_images_of_samples_beside_the_scalars(run):
    assert track.main([str(run), "--to", "tensorboard"]) == 0
    files = list(run.glob("*/training/events.out.tfevents.*"))
    assert len(files) == 1
    version, event = (dict(fields(record)) for record in records(files[0]))
    assert version[3] == b"brain.Event:2"
    assert event[2] == 20  # step
    assert event[1] > 1e9  # seconds since 1970
    value = dict(fields(dict(fields(event[5]))[1]))
    assert value[1] == b"samples"
    image = dict(fields(value[4]))
    assert (image[1], image[2], image[3]) == (3, 2, 1)
    assert image[4] == png()
    # A second call has nothing new to tell.
    assert track.main([str(run), "--to", "tensorboard"]) == 0
    assert list(run.glob("*/training/events.out.tfevents.*")) == files


def test_tensorboards_own_reader_reads_it(run):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    track.main([str(run), "--to", "tensorboard"])
    events = accumulator.EventAccumulator(str(run / "teacher" / "training"))
    events.Reload()
    (image,) = events.Images("samples")
    assert (image.step, image.height, image.width) == (20, 3, 2)


class FakeWandb(types.ModuleType):
    """Remembers what was reported to it."""

    def __init__(self):
        super().__init__("wandb")
        self.reported, self.asked, self.finished = [], None, 0
        self.Image = lambda path: ("image", path)

    def init(self, **options):
        self.asked = options
        return self

    def define_metric(self, name, step_metric=None):
        self.reported.append((name, step_metric))

    def log(self, values):
        self.reported.append(values)

    def finish(self):
        self.finished += 1


def test_wandb_gets_every_step_once(run, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    assert track.main([str(run), "--to", "wandb", "--project", "toys"]) == 0
    assert wandb.asked["project"] == "toys" and wandb.asked["name"] == "run"
    assert wandb.asked["resume"] == "allow"
    assert wandb.asked["config"] == {"seed": 3, "dm.batch": 64}
    step_20 = {"teacher/step": 20, "teacher/loss": 0.25, "teacher/probe_distance": 1.5}
    assert step_20 in wandb.reported
    path = str(run / "teacher/training/samples/step-000020.png")
    assert {"teacher/step": 20, "teacher/samples": ("image", path)} in wandb.reported
    assert ("students/0/dm/*", "students/0/dm/step") in wandb.reported
    first, wandb.reported = wandb.asked["id"], []

    # The run was resumed from step 15, went on, and is just writing a line.
    log = run / "teacher/training/metrics.jsonl"
    rows = [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25}, {"step": 30, "loss": 0.125}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40, "lo')
    assert track.main([str(run), "--to", "wandb"]) == 0
    assert wandb.asked["id"] == first
    assert [values for values in wandb.reported if isinstance(values, dict)] == [
        {"teacher/step": 30, "teacher/loss": 0.125}
    ]
    assert wandb.finished == 2


def test_mlflow_goes_on_with_the_same_run(run, monkeypatch):
    reported = []
    mlflow = types.ModuleType("mlflow")
    mlflow.set_experiment = lambda name: reported.append(("experiment", name))
    mlflow.log_param = lambda key, value: reported.append((key, value))
    mlflow.log_metrics = lambda values, step: reported.append((step, values))
    mlflow.log_artifact = lambda path, artifact_path: reported.append(artifact_path)
    mlflow.end_run = lambda: reported.append("end")

    def start_run(run_name=None, run_id=None):
        reported.append(("start", run_name, run_id))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="the-run"))

    mlflow.start_run = start_run
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    assert track.main([str(run), "--to", "mlflow", "--name", "first"]) == 0
    assert reported[:2] == [("experiment", "atelier"), ("start", "first", None)]
    assert ("dm.batch", "64") in reported
    assert (20, {"teacher/loss": 0.25, "teacher/probe_distance": 1.5}) in reported
    assert "students/0/dm/samples" in reported
    reported.clear()
    assert track.main([str(run), "--to", "mlflow"]) == 0
    assert reported == [("experiment", "atelier"), ("start", None, "the-run"), "end"]


def test_follow_goes_on_until_the_report_is_there(run, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)

    def meanwhile(seconds):
        assert seconds == 5
        with open(run / "teacher/training/metrics.jsonl", "a") as log:
            log.write(json.dumps({"step": 30, "loss": 0.1}) + "\n")
        (run / "report.html").write_text("")

    monkeypatch.setattr(track.time, "sleep", meanwhile)
    assert track.main([str(run), "--to", "wandb", "--follow", "--every", "5"]) == 0
    assert {"teacher/step": 30, "teacher/loss": 0.1} in wandb.reported


def test_what_is_missing_is_one_message(tmp_path, run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)  # cannot be imported
    for arguments, says in (
        ([str(tmp_path / "none"), "--to", "tensorboard"], "there is no such directory"),
        ([str(tmp_path), "--to", "tensorboard"], "has logged nothing yet"),
        ([str(run), "--to", "wandb"], "wandb is not installed; install it with: pip install wandb"),
    ):
        assert track.main(arguments) == 1
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
