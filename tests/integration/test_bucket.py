"""Checkpoints in an S3-compatible bucket: a real S3 server of this machine, and the store that a coordinator uses."""

from collections.abc import Iterator

import pytest

from server.artifacts import ArtifactStore
from server.errors import NotFound, Unavailable

NONE = "NO S3 SERVER: pip install -e '.[s3-test]' to test the artifact store on a bucket"
moto = pytest.importorskip("moto.server", reason=NONE)
pytest.importorskip("s3fs", reason=NONE)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket; keys and endpoint come from the environment, as an operator gives them."""
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("ENDPOINT_URL", f"http://{host}:{port}")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="artifacts")
    yield "s3://artifacts/hypevolve"
    server.stop()


def test_an_object_is_whole_or_not_there(bucket: str) -> None:
    store = ArtifactStore(bucket)
    content = bytes(range(256)) * 50_000  # 12.8 MB: several parts of an upload
    with store.create("a/whole") as upload:
        for start in range(0, len(content), 1 << 20):
            upload.write(content[start : start + (1 << 20)])
        upload.finish()
    with store.create("a/broken-off") as upload:
        upload.write(content)
    again = ArtifactStore(bucket)  # another replica
    assert b"".join(again.read("a/whole")) == content
    with pytest.raises(NotFound, match="do all replicas share it"):
        list(again.read("a/broken-off"))
    again.delete("a/whole")
    again.delete("a/whole")
    with pytest.raises(NotFound):
        list(again.read("a/whole"))


def test_a_bucket_that_is_not_there_is_unavailable(bucket: str) -> None:
    store = ArtifactStore(bucket.replace("artifacts", "nowhere"))

    def write() -> None:
        with store.create("a") as upload:
            upload.write(b"1")
            upload.finish()

    with pytest.raises(Unavailable, match="artifact store"):
        write()
