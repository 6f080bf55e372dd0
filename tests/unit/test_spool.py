"""What a worker's folder keeps, and what becomes of it when the worker died."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hypevolve.messages import Lease
from worker.errors import CannotWork
from worker.spool import Parcel, Spool

URL = "http://coordinator:8080"


def lease(token: str = "t1") -> Lease:
    return Lease(
        candidate=7, campaign="bccd", number=3, rung=0, token=token, hyp={}, hyp_hash="h", data_hash=None, base={}, trainer={},
        weights={}, seed=3, epochs=2, lease_s=60, beat_s=15,
    )  # fmt: skip


def files(folder: Path, kind: str) -> list[str]:
    return sorted(file.name for file in (folder / kind).iterdir())


def test_a_lease_left_by_a_dead_worker_becomes_a_release(tmp_path: Path):
    spool = Spool(tmp_path, URL)
    spool.hold(lease())
    spool.close()  # as the kernel does for a dead process
    spool = Spool(tmp_path, URL)
    (parcel,) = spool.outbox()
    assert (parcel.kind, parcel.token, parcel.body) == ("release", "t1", {"reason": "worker_restarted"})
    assert files(tmp_path, "leases") == []


def test_a_result_outlives_its_worker_and_its_lease_is_not_released(tmp_path: Path):
    spool = Spool(tmp_path, URL)
    spool.hold(lease())
    spool.put(Parcel.about("result", URL, lease(), {"fitness": 0.4}, [{"epoch": 0, "metrics": {}}]))
    spool.hold(lease())  # killed before the lease's file was removed
    spool.close()
    (parcel,) = Spool(tmp_path, URL).outbox()
    assert (parcel.kind, parcel.body, parcel.epochs) == ("result", {"fitness": 0.4}, [{"epoch": 0, "metrics": {}}])
    assert files(tmp_path, "leases") == []


def test_two_workers_cannot_share_a_folder(tmp_path: Path):
    first = Spool(tmp_path, URL)
    with pytest.raises(CannotWork, match="another worker is using the folder") as caught:
        Spool(tmp_path, URL)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    first.close()
    Spool(tmp_path, URL)


def test_the_oldest_is_sent_first_and_what_is_sent_is_gone(tmp_path: Path):
    spool = Spool(tmp_path, URL)
    for age, token in enumerate(("b", "a", "c")):
        spool.put(Parcel.about("failure", URL, lease(token), {"kind": "nan"}))
        os.utime(tmp_path / "outbox" / f"{token}.json", (age, age))
    assert [parcel.token for parcel in spool.outbox()] == ["b", "a", "c"]
    spool.sent(spool.outbox()[0])
    assert [parcel.token for parcel in spool.outbox()] == ["a", "c"]


def test_what_was_refused_is_kept_with_the_reason(tmp_path: Path):
    spool = Spool(tmp_path, URL)
    spool.put(Parcel.about("result", URL, lease(), {"fitness": 0.4}))
    file = spool.refuse(spool.outbox()[0], "data_hash differs")
    assert spool.outbox() == []
    assert json.loads(file.read_text())["refused"] == "data_hash differs"


def test_results_for_another_coordinator_are_kept_and_not_sent_to_this_one(tmp_path: Path):
    spool = Spool(tmp_path, "http://other:8080")
    spool.put(Parcel.about("result", "http://other:8080", lease(), {"fitness": 0.4}))
    spool.close()
    spool = Spool(tmp_path, URL)
    assert spool.outbox() == []
    assert [parcel.url for parcel in spool.foreign()] == ["http://other:8080"]


def test_a_damaged_file_stops_nobody(tmp_path: Path):
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "x.json").write_text("{")
    spool = Spool(tmp_path, URL)
    assert spool.outbox() == []
    assert files(tmp_path, "refused") == ["x.json"]


def test_a_full_disk_costs_durability_and_not_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    spool = Spool(tmp_path, URL)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("worker.spool._write", full)
    spool.put(Parcel.about("result", URL, lease(), {"fitness": 0.4}))
    (parcel,) = spool.outbox()
    assert parcel.body == {"fitness": 0.4}
    spool.sent(parcel)
    assert spool.outbox() == []


def test_no_token_names_a_file_outside_the_folder(tmp_path: Path):
    spool = Spool(tmp_path / "spool", URL)
    spool.hold(lease("../../etc/passwd"))
    assert files(tmp_path, "spool/leases") == ["%2e%2e%2f%2e%2e%2fetc%2fpasswd.json"]
    assert spool.scratch("..").parent == tmp_path / "spool" / "scratch"
