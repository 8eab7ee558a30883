"""A stand-in for Google Cloud Storage, over HTTP: an emulator that keeps conditions."""

from http import HTTPStatus
from typing import Any

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import APIThread
from gcp_storage_emulator.storage import Storage

_upload = objects._multipart_upload


def _conditional_upload(request: Any, response: Any, storage: Any) -> None:
    """Uploads an object, unless it must not exist and does: the emulator knows no conditions."""
    if Gcs.keeps_conditions and request.query.get("ifGenerationMatch") == ["0"]:
        try:
            storage.get_file_obj(request.params["bucket_name"], request.data["meta"]["name"])
        except NotFound:
            pass
        else:
            response.status = HTTPStatus.PRECONDITION_FAILED
            return
    _upload(request, response, storage)


class Gcs:
    """Listens from its creation until `close`, and again from `start` on.

    Attributes:
        keeps_conditions: Whether "only if it does not exist" is kept, as Google does.
        endpoint: Its URL.
        options: fsspec options for it.
    """

    keeps_conditions = True

    def __init__(self, port: int = 0) -> None:
        objects._multipart_upload = _conditional_upload
        self._storage = Storage(use_memory_fs=True)
        create_bucket("bucket", self._storage)
        self._port = port
        self.start()
        self._port = self._api._httpd.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.options: dict[str, object] = {"endpoint_url": self.endpoint, "token": "anon"}

    def start(self) -> None:
        """Listens, at the same port and with the same objects as before."""
        self._api = APIThread("127.0.0.1", self._port, self._storage, daemon=True)
        self._api.start()
        self._api.is_running.wait()

    @property
    def is_running(self) -> bool:
        """Whether it accepts connections."""
        return self._api.is_running.is_set()

    def new_bucket(self, name: str) -> None:
        """Makes a bucket."""
        create_bucket(name, self._storage)

    def close(self) -> None:
        """Accepts no more connections."""
        self._api.join()
