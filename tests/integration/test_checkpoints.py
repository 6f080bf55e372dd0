"""Checkpoints: who may write one, what is taken, what the next attempt is given, what is removed."""

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from server import checkpoints
from server.artifacts import ArtifactStore
from server.errors import NotFound, Unavailable

TENSORS = save({"weights": np.arange(6, dtype=np.float32), "more": np.ones((2, 2))}, metadata={"epoch": "2"})


def digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


def put(api: Any, lease: dict[str, Any], content: bytes = TENSORS, epoch: int = 2, **headers: str) -> Any:
    return api.http.put(
        f"/api/v1/leases/{lease['token']}/checkpoint",
        params={"epoch": epoch},
        content=content,
        headers={"Repr-Digest": digest(content), **headers},
    )


def get(api: Any, lease: dict[str, Any]) -> Any:
    return api.http.get(f"/api/v1/candidates/{lease['candidate']}/checkpoint")


def store_of(api: Any) -> ArtifactStore:
    store: ArtifactStore = api.http.app.state.coordinator.artifacts
    return store


def objects(store: ArtifactStore) -> list[Path]:
    return [path for path in Path(store.url).rglob("*") if path.is_file()]


def test_the_next_attempt_is_given_the_newest_checkpoint(api: Any) -> None:
    api.create(candidates=1)
    first = api.lease()
    assert first["checkpoint"] is None
    assert get(api, first).status_code == 404
    put(api, first, save({"old": np.zeros(3)}), epoch=1)
    assert put(api, first).json() == {"sha256": hashlib.sha256(TENSORS).hexdigest(), "bytes": len(TENSORS), "epoch": 2}
    api.expire(first)
    second = api.lease()
    assert second["checkpoint"] == put(api, second).json()
    answer = get(api, second)
    assert answer.content == TENSORS
    assert answer.headers["repr-digest"] == digest(TENSORS)
    assert answer.headers["content-length"] == str(len(TENSORS))


def test_the_same_content_again_is_stored_once(api: Any) -> None:
    api.create(candidates=1)
    lease = api.lease()
    assert put(api, lease).json() == put(api, lease).json()
    assert len(objects(store_of(api))) == 1


def test_a_repeated_upload_without_a_length_gets_the_first_answer(api: Any) -> None:
    """Chunked, as a client sends what it does not know the length of."""
    api.create(candidates=1)
    lease = api.lease()
    headers = {"Repr-Digest": digest(TENSORS)}
    url = f"/api/v1/leases/{lease['token']}/checkpoint"
    answers = [api.http.put(url, params={"epoch": 2}, content=iter([TENSORS]), headers=headers).json() for _ in range(2)]
    assert answers[0]["bytes"] == len(TENSORS)
    assert answers[0] == answers[1]


def test_only_the_newest_token_may_write_and_only_while_its_attempt_lives(api: Any) -> None:
    api.create(candidates=1)
    silent = api.lease()
    api.expire(silent)
    assert put(api, silent).status_code == 200  # expired, but nobody has taken it
    holder = api.lease()
    late = put(api, silent, save({"late": np.zeros(1)}))
    assert (late.status_code, late.json()["type"]) == (409, "/problems/lease-lost")
    assert get(api, holder).content == TENSORS
    api.http.delete(f"/api/v1/leases/{holder['token']}")
    assert put(api, holder, save({"x": np.zeros(1)})).status_code == 409
    third = api.lease()
    api.result(third)
    assert put(api, third, save({"x": np.zeros(1)})).status_code == 409
    unknown = put(api, {"token": "nonsense"})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/unknown-token")


def test_a_token_that_is_superseded_while_it_sends_changes_nothing(api: Any) -> None:
    api.create(candidates=1)
    slow = api.lease()
    name = api.database.run(lambda c: checkpoints.announce(c, slow["token"], "0" * 64, 1))
    api.expire(slow)
    holder = api.lease()
    with pytest.raises(Exception, match="no longer this worker's"):
        api.database.run(lambda c: checkpoints.complete(c, slow["token"], name, 1))
    assert holder["checkpoint"] is None
    assert get(api, holder).status_code == 404


PICKLE = b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
TORCH_ZIP = b"PK\x03\x04\x14\x00\x00\x00\x08\x08archive/data.pkl" + bytes(100)


@pytest.mark.parametrize(
    "content",
    [PICKLE, TORCH_ZIP, b"", b"epoch 3", TENSORS[:-1], TENSORS + b"x", TENSORS[:30], b'{"epoch": ', b"\xff" * 64,
     struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 40) + b'{"a": {"data_offsets": [0, 9000000000]}}'],
    ids=["pickle", "torch", "empty", "text", "short", "long", "header", "json", "ones", "list", "offsets"],
)  # fmt: skip
def test_only_safetensors_and_json_cross_the_network(api: Any, content: bytes) -> None:
    api.create(candidates=1)
    lease = api.lease()
    answer = put(api, lease, content)
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/checkpoint-format")
    assert get(api, lease).status_code == 404
    assert objects(store_of(api)) == []


@pytest.mark.parametrize("content", [b"{}", b"[1, 2]", json.dumps({"epoch": 3, "x": [0.1] * 5000}).encode()])
def test_json_is_a_checkpoint_too(api: Any, content: bytes) -> None:
    api.create(candidates=1)
    lease = api.lease()
    assert put(api, lease, content).status_code == 200
    assert get(api, lease).content == content


def test_what_does_not_arrive_whole_is_refused_and_the_one_before_stays(api: Any) -> None:
    api.create(candidates=1)
    lease = api.lease()
    put(api, lease)
    other = save({"other": np.zeros(100_000)})
    wrong = put(api, lease, other, **{"Repr-Digest": digest(b"something else")})
    assert (wrong.status_code, wrong.json()["type"]) == (422, "/problems/checkpoint-digest")
    assert put(api, lease, other, **{"Repr-Digest": "md5=:AAAA:"}).json()["type"] == "/problems/repr-digest"
    api.http.app.state.coordinator.most_checkpoint_bytes = 1000
    assert put(api, lease, other).status_code == 413

    def chunked() -> Any:
        for start in range(0, len(other), 500):
            yield other[start : start + 500]

    answer = api.http.put(
        f"/api/v1/leases/{lease['token']}/checkpoint", content=chunked(), headers={"Repr-Digest": digest(other)}
    )
    assert answer.status_code == 413
    assert get(api, lease).content == TENSORS
    assert len(objects(store_of(api))) == 1


def test_garbage_is_collected_and_nothing_else(api: Any) -> None:
    api.create(candidates=3, retries=0)
    store = store_of(api)
    done, failed, training = api.ask(n=3)
    for lease in (done, failed, training):
        put(api, lease, save({"first": np.zeros(2)}))
        put(api, lease)
    assert len(objects(store)) == 6
    api.result(done)
    api.fail(failed)
    interrupted = api.database.run(lambda c: checkpoints.announce(c, training["token"], "0" * 64, 1))
    assert checkpoints.collect(api.database, store) == 5
    assert len(objects(store)) == 1
    assert get(api, training).content == TENSORS
    api.sql("update artifact set created_at = created_at - interval '1 day'")
    assert checkpoints.collect(api.database, store) == 1  # announced a day ago, its sender is dead
    assert api.sql("select name from artifact where name = :name", name=interrupted) == []
    assert checkpoints.collect(api.database, store) == 0


def test_after_a_failure_a_candidate_starts_anew(api: Any) -> None:
    api.create(candidates=1, retries=1)
    lease = api.lease()
    put(api, lease)
    api.fail(lease)
    assert api.lease()["checkpoint"] is None


def test_the_curve_of_a_resumed_training_has_all_its_epochs(api: Any) -> None:
    def report(lease: dict[str, Any], *epochs: int) -> None:
        body = [{"epoch": epoch, "metrics": {"map50": epoch / 10, "by": float(lease["attempt"])}} for epoch in epochs]
        api.http.post(f"/api/v1/leases/{lease['token']}/epochs", json={"epochs": body})

    api.create(candidates=1)
    for attempt, (start, end) in enumerate([(0, 3), (2, 5), (4, 6)]):
        lease = api.lease() | {"attempt": attempt}
        report(lease, *range(start, end))
        put(api, lease, save({"at": np.full(1, attempt)}), epoch=end - 1)
        if attempt < 2:
            api.expire(lease)
    api.result(lease)
    curve = api.http.get("/api/v1/campaigns/toy/candidates/0/epochs").json()["epochs"]
    assert [(row["epoch"], row["metrics"]["by"]) for row in curve] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]


def test_without_a_store_a_checkpoint_is_refused_and_a_full_disk_takes_none(api: Any, tmp_path: Path, monkeypatch: Any) -> None:
    api.create(candidates=1)
    lease = api.lease()
    monkeypatch.setattr("server.artifacts.SPARE_SHARE", 1.0)
    full = put(api, lease)
    assert (full.status_code, full.json()["type"]) == (503, "/problems/store-full")
    api.http.app.state.coordinator.artifacts = None
    assert put(api, lease).json()["type"] == "/problems/no-artifact-store"


def test_the_store_is_any_fsspec_url(tmp_path: Path) -> None:
    for url in (str(tmp_path / "plain"), (tmp_path / "url").as_uri(), "memory://bucket/prefix"):
        store = ArtifactStore(url)
        with store.create("checkpoints/1/x") as upload:
            upload.write(b"abc")
            upload.write(b"def")
            upload.finish()
        with store.create("checkpoints/1/unfinished") as upload:
            upload.write(b"abc")
        assert b"".join(store.read("checkpoints/1/x")) == b"abcdef"
        with pytest.raises(NotFound, match="do all replicas share it"):
            store.read("checkpoints/1/unfinished")
        store.delete("checkpoints/1/x")
        store.delete("checkpoints/1/x")
    with pytest.raises(ValueError, match="cannot be opened"):
        ArtifactStore("nosuch://bucket")
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot serve now"):
        ArtifactStore(str(tmp_path / "file" / "below")).create("x")
