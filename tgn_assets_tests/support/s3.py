"""An S3-compatible server on a free port of this machine, which knows nobody's password, and a bucket in it."""

import logging
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import s3fs
from moto.server import ThreadedMotoServer

BUCKET = "logs"
SECRET = "wJalr/XUtnFEMI+K7MDENG"


@contextmanager
def bucket() -> Iterator[s3fs.S3FileSystem]:
    """Within, the environment names the server and `SECRET`; what it yields looks into the same store."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        try:
            store = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}", use_listings_cache=False)
            store.mkdir(BUCKET)
            yield store
        finally:
            # All servers of a process look into one store.
            urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
            server.stop()
