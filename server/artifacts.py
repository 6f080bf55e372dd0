"""The one door to the artifact store: a folder, an S3-compatible bucket or GCS, by an fsspec URL.

Every object is written once, under a name of its own that a row of the table ``artifact`` announces beforehand, and is never
changed: which one counts is decided by a row, so that no store has to rename or lock anything. What rows no longer name is
deleted by ``server.checkpoints.collect``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fsspec

from server.errors import NotFound, Unavailable

CHUNK = 1 << 20
SPARE_SHARE = 0.05  # of a local disk, which the database may share: a full one stops PostgreSQL


class ArtifactStore:
    """Objects below one URL: ``/srv/artifacts``, ``file:///srv/artifacts``, ``s3://bucket/prefix``, ``gs://bucket/prefix``.

    Credentials and endpoints come from the environment, as each fsspec filesystem reads them (``AWS_ACCESS_KEY_ID``,
    ``AWS_ENDPOINT_URL``, ``GOOGLE_APPLICATION_CREDENTIALS`` ...).
    """

    def __init__(self, url: str) -> None:
        """Connects only when first used; a local folder is created then.

        Raises:
            ValueError: the URL is of no kind that this installation can open; names the package to install.
        """
        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"artifacts {url} cannot be opened ({error}); give a folder, s3://… or gs://…") from error
        self._local = "file" in _protocols(self._files)

    def create(self, name: str) -> Upload:
        """A new object, to be filled.

        Raises:
            Unavailable: the store cannot be written, or its disk is nearly full.
        """
        if self._local:
            self._look_at_disk()
        try:
            return Upload(self._files, self._path(name), self._local)
        except Exception as error:
            raise _unavailable(self.url, error) from error

    def read(self, name: str) -> Iterator[bytes]:
        """The content in chunks.

        Raises:
            NotFound: there is no such object (another replica has another folder, or somebody removed it).
            Unavailable: the store does not answer.
        """
        try:
            opened = self._files.open(self._path(name), "rb")
        except FileNotFoundError as error:
            raise NotFound("no-artifact", f"{name} is not in the store {self.url}; do all replicas share it?") from error
        except Exception as error:
            raise _unavailable(self.url, error) from error

        def chunks() -> Iterator[bytes]:
            with opened:
                while chunk := opened.read(CHUNK):
                    yield chunk

        return chunks()

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error.

        Raises:
            Unavailable: the store does not answer.
        """
        try:
            self._files.rm_file(self._path(name))
        except FileNotFoundError:
            return
        except Exception as error:
            raise _unavailable(self.url, error) from error

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _look_at_disk(self) -> None:
        folder = Path(self._root)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            usage = shutil.disk_usage(folder)
        except OSError as error:
            raise _unavailable(self.url, error) from error
        if usage.free < SPARE_SHARE * usage.total:
            raise Unavailable("store-full", f"the disk of {self.url} is over {1 - SPARE_SHARE:.0%} full; free some space there")


class Upload:
    """An object being written, as a context: complete once ``finish`` has returned, removed where that is never called."""

    def __init__(self, files: Any, path: str, local: bool) -> None:
        self._files = files
        self._path = path
        self._local = local
        if local:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        self._opened = files.open(path, "wb")
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._finished:
            return
        try:
            self._opened.close()  # in a bucket this completes what came so far, which is removed as well
            self._files.rm_file(self._path)
        except Exception:  # noqa: S110 - the row that announced the object stays, so that it is removed later
            pass

    def write(self, chunk: bytes) -> None:
        """Raises Unavailable."""
        try:
            self._opened.write(chunk)
        except Exception as error:
            raise _unavailable(self._path, error) from error

    def finish(self) -> None:
        """On the disk, or acknowledged by the bucket, when this returns. Raises Unavailable."""
        try:
            self._opened.flush()
            if self._local:
                os.fsync(self._opened.fileno())
            self._opened.close()
            if self._local:
                _sync_folder(os.path.dirname(self._path))
        except Exception as error:
            raise _unavailable(self._path, error) from error
        self._finished = True


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name itself
    finally:
        os.close(descriptor)


def _unavailable(where: str, error: Exception) -> Unavailable:
    """Each kind of store has its own errors; all mean that it cannot serve now."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return Unavailable("artifact-store", f"the artifact store at {where} cannot serve now ({reason}); repeat the request")
