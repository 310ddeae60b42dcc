"""boto3 against an S3 server (moto's) behind the router; the server checks signatures, which cover Host and path."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import boto3  # type: ignore[import-untyped]
import httpx
import pytest
from boto3.s3.transfer import TransferConfig  # type: ignore[import-untyped]
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from tests.clients.house import CLEAN, noise, router_before, servers
from tests.running import free_ports
from tests.waiting import until

PART = 5 << 20
"""The least that S3 takes for a part that is not the last one."""
FILM = noise(2 * PART + 1_000, "film")
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
BUCKET = "ring-films"
SIDE_BY_SIDE = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=3)


@dataclass
class Storage:
    """An S3 server behind a router, and a user it knows."""

    host: str
    server: str
    key: str
    secret: str

    def client(self, secret: str | None = None) -> Any:
        return aws("s3", f"http://{self.host}", self.key, secret or self.secret)

    def seen(self, host: str | None = None) -> list[dict[str, Any]]:
        """What reached the server (method, url, headers, body), all of it by the router and with the client's Host."""
        lines = call(f"{self.server}/moto-api/recorder/download-recording", "GET").splitlines()
        seen: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for request in seen:
            headers = request["headers"] = {name.lower(): value for name, value in request["headers"].items()}
            assert headers["host"] == headers["x-forwarded-host"] == (host or self.host)
            assert (headers["x-ring"], headers["x-ring-version"]) == ("everyone", "v1")
            assert headers["x-forwarded-for"] == "127.0.0.1"
        return seen


def aws(service: str, url: str, key: str, secret: str) -> Any:
    config = Config(proxies={}, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, read_timeout=30)
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret,
        config=config,
    )  # fmt: skip


def call(url: str, method: str = "POST", data: bytes | None = None) -> bytes:
    request = Request(url, data=data, method=method, headers={"Content-Type": "text/plain"})
    with build_opener(ProxyHandler({})).open(request, timeout=10) as response:
        body: bytes = response.read()
    return body


def answers(url: str) -> Callable[[], bool]:
    def ask() -> bool:
        try:
            call(url, "GET")
        except OSError:
            return False
        return True

    return ask


@contextmanager
def moto_server(directory: Path) -> Iterator[int]:
    """moto's server as a process of its own; gone by its id when the block ends."""
    (port,) = free_ports(1)
    environment = CLEAN | {"MOTO_RECORDER_FILEPATH": str(directory / "recording")}
    with (directory / "moto.log").open("wb") as log:
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with subprocess.Popen(words, stdout=log, stderr=log, env=environment) as process:
            try:
                yield port
            finally:
                process.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    directory = tmp_path_factory.mktemp("storage")
    with servers() as loop, moto_server(directory) as port, router_before(loop, directory, port, port) as router:
        server = f"http://127.0.0.1:{port}"
        loop.run(until(answers(f"{server}/moto-api/"), within=30))
        iam = aws("iam", server, "anybody", "anything")
        iam.create_user(UserName="victor")
        iam.put_user_policy(UserName="victor", PolicyName="all", PolicyDocument=json.dumps(EVERYTHING))
        key = iam.create_access_key(UserName="victor")["AccessKey"]
        call(f"{server}/moto-api/reset-auth", data=b"0")  # from here on nobody is believed without a signature
        yield Storage(f"127.0.0.1:{router.port}", server, key["AccessKeyId"], key["SecretAccessKey"])


@pytest.fixture
def storage(running: Storage) -> Storage:
    running.client().create_bucket(Bucket=BUCKET)
    for step in ("reset", "start"):
        call(f"{running.server}/moto-api/recorder/{step}-recording")
    return running


def download(s3: Any, key: str) -> bytes:
    whole = io.BytesIO()
    s3.download_fileobj(BUCKET, key, whole, Config=SIDE_BY_SIDE)
    return whole.getvalue()


def body_of(request: dict[str, Any]) -> bytes:
    body: str = request["body"]
    return base64.b64decode(body) if request["body_encoded"] else body.encode()


def test_boto3_puts_gets_lists_and_deletes(storage: Storage) -> None:
    s3 = storage.client()
    keys = ["a b/ä+c~d.txt", "plain", "x=1&y=%2F"]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=key.encode(), Metadata={"owner": "victor"})
    listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [entry["Key"] for entry in listed] == keys
    for key in keys:
        got = s3.get_object(Bucket=BUCKET, Key=key)
        assert (got["Body"].read(), got["Metadata"]) == (key.encode(), {"owner": "victor"})
        assert s3.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == len(key.encode())
    s3.delete_object(Bucket=BUCKET, Key="plain")
    s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys if key != "plain"]})
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    seen = storage.seen()
    assert all(request["headers"]["expect"] == "100-continue" for request in seen if request["method"] == "PUT")
    methods = [request["method"] for request in seen]
    assert methods == ["PUT"] * 3 + ["GET"] + ["GET", "HEAD"] * 3 + ["DELETE", "POST", "GET"]


def test_boto3_uploads_in_parts_and_downloads_ranges(storage: Storage) -> None:
    s3 = storage.client()
    one_by_one = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, use_threads=False)
    s3.upload_fileobj(io.BytesIO(FILM), BUCKET, "film", Config=one_by_one)
    assert s3.head_object(Bucket=BUCKET, Key="film")["ETag"].endswith('-3"')
    assert download(s3, "film") == FILM
    some = s3.get_object(Bucket=BUCKET, Key="film", Range="bytes=5242000-5243999")
    assert (some["Body"].read(), some["ContentRange"]) == (FILM[5242000:5244000], f"bytes 5242000-5243999/{len(FILM)}")
    parts = [request for request in storage.seen() if "partNumber=" in request["url"]]
    assert b"".join(body_of(part) for part in parts) == FILM
    s3.delete_object(Bucket=BUCKET, Key="film")


def test_boto3_uploads_parts_side_by_side(storage: Storage) -> None:
    call(f"{storage.server}/moto-api/recorder/stop-recording")  # it mixes up large requests that come at once
    s3 = storage.client()
    s3.upload_fileobj(io.BytesIO(FILM), BUCKET, "film", Config=SIDE_BY_SIDE)
    call(f"{storage.server}/moto-api/recorder/start-recording")
    assert download(s3, "film") == FILM
    assert sorted(request["headers"].get("range", "") for request in storage.seen()) == [
        "", "bytes=0-5242879", "bytes=10485760-", "bytes=5242880-10485759",
    ]  # fmt: skip
    s3.delete_object(Bucket=BUCKET, Key="film")


def test_a_wrong_signature_is_refused_by_the_server(storage: Storage) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        storage.client("not the secret").put_object(Bucket=BUCKET, Key="forged", Body=b"?")
    with pytest.raises(ClientError, match="NoSuchKey"):
        storage.client().get_object(Bucket=BUCKET, Key="forged")
    assert [request["method"] for request in storage.seen()] == ["PUT", "GET"]


def test_a_signature_for_another_host_is_refused_by_the_server(storage: Storage) -> None:
    """So the server does look at the Host that it gets, and the other stories say something."""
    url = f"http://{storage.host}/{BUCKET}"
    signed = AWSRequest("GET", url, headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    S3SigV4Auth(Credentials(storage.key, storage.secret), "s3", "us-east-1").add_auth(signed)
    with httpx.Client(trust_env=False, timeout=30) as client:
        assert client.get(url, headers=dict(signed.headers)).status_code == 200
        assert storage.seen()[0]["headers"]["authorization"] == signed.headers["Authorization"]
        call(f"{storage.server}/moto-api/recorder/reset-recording")
        other = client.get(url, headers={**signed.headers, "Host": "films.example"})
    assert other.status_code == 403
    assert "SignatureDoesNotMatch" in other.text
    assert len(storage.seen("films.example")) == 1
