"""The hook against n8n's recorded answers, hostile URLs and broken networks: one execution, or a true error."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import traceback
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.sdk.exceptions import AirflowNotFoundException
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_httpserver import HTTPServer

from aggregator.errors import HardError, is_transient
from aggregator.hooks import n8n as module
from aggregator.hooks.n8n import (
    Delivery,
    N8nHook,
    N8nRefusedError,
    N8nUnavailableError,
    N8nUnknownError,
    _is_public,
)
from dev.n8n.app import Workflow
from dev.n8n.fixtures import KEY
from dev.stand_in.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dev.n8n.client import N8nControl

PAYLOAD = {"kpiId": "btc/🦊", "metadata": {"kpiName": "{{ $json.x }} {{ var.value.secret }}"}}
HTML = {"Content-Type": "text/html; charset=utf-8"}
BOOTING = Fault(status=404, body="<!DOCTYPE html><pre>Cannot POST /webhook/btc</pre>", headers=HTML)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def connect(*origins: str, password: str = KEY, **extra: Any) -> None:
        fields = {"conn_type": "http", "password": password, "extra": {"allowed_origins": origins, **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_N8N", json.dumps(fields))

    return connect


@pytest.fixture
def workflow(n8n: N8nControl, connect: Callable[..., None]) -> N8nControl:
    """An n8n with one workflow, at ``/webhook/btc``, that the connection allows."""
    connect(n8n.url)
    n8n.register({"btc": Workflow()})
    return n8n


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def hook(slept: list[float]) -> N8nHook:
    return N8nHook(sleep=slept.append, timeouts=(2, 1))


def post(hook: N8nHook, url: str) -> Delivery:
    return hook.post(url, PAYLOAD, idempotency_key="trace_20261115_120000_abcdefgh/btc🦊")


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


class TestDelivery:
    def test_webhook_gets_the_payload_untouched_and_the_key(self, workflow, hook) -> None:
        assert post(hook, workflow.webhook("btc")) == Delivery(200, 0)
        (execution,) = workflow.executions()
        assert execution["body"] == PAYLOAD
        assert execution["idempotency_key"] == "trace_20261115_120000_abcdefgh/btc%F0%9F%A6%8A"
        (request,) = workflow.requests()
        assert request["headers"]["authorization"] == f"Bearer {KEY}"
        assert request["headers"]["host"] == httpx.URL(workflow.url).netloc.decode()

    def test_key_of_the_setting_stands_in_for_the_connections(self, workflow, hook, connect, monkeypatch) -> None:
        connect(workflow.url, password="")
        monkeypatch.setenv("N8N_API_KEY", KEY)
        post(hook, workflow.webhook("btc"))
        assert len(workflow.executions()) == 1

    @pytest.mark.parametrize("connected", [True, False])
    def test_key_with_a_line_break_at_its_end_is_sent_without_it(
        self, workflow, hook, connect, monkeypatch, connected: bool
    ) -> None:
        connect(workflow.url, password=f" {KEY}\n" if connected else "")
        monkeypatch.setenv("N8N_API_KEY", f"{KEY}\r\n")
        post(hook, workflow.webhook("btc"))
        (request,) = workflow.requests()
        assert request["headers"]["authorization"] == f"Bearer {KEY}"

    @pytest.mark.parametrize("status", [408, 425, 429, 502, 503])
    def test_what_was_not_started_is_sent_again(self, workflow, hook, slept, status: int) -> None:
        workflow.faults({"btc": [Fault(status=status), BOOTING]})
        assert post(hook, workflow.webhook("btc")) == Delivery(200, 2)
        assert slept == [1, 2]
        assert len(workflow.executions()) == 1

    def test_after_four_attempts_it_is_the_tasks_to_try_again(self, workflow, hook, slept) -> None:
        workflow.faults({"btc": [BOOTING.model_copy(update={"times": None})]})
        with pytest.raises(N8nUnavailableError, match=r"answered 404: Cannot POST /webhook/btc\.") as caught:
            post(hook, workflow.webhook("btc"))
        assert (slept, caught.value.retry_count, caught.value.status) == ([1, 2, 4], 3, 404)
        assert is_transient(caught.value)

    def test_n8n_says_when_to_come_again(self, workflow, hook, slept) -> None:
        in_twenty = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
        workflow.faults({"btc": [Fault(status=429, headers={"Retry-After": value}) for value in ("7", in_twenty)]})
        assert post(hook, workflow.webhook("btc")).retry_count == 2
        assert slept[0] == 7
        assert 10 < slept[1] <= 20

    def test_a_long_wait_is_left_to_the_task(self, workflow, hook, slept) -> None:
        workflow.faults({"btc": [Fault(status=429, headers={"Retry-After": "3600"})]})
        with pytest.raises(N8nUnavailableError) as caught:
            post(hook, workflow.webhook("btc"))
        assert slept == []
        assert caught.value.retry_after == timedelta(hours=1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("workflow_", "words"),
        [
            (Workflow(active=False), 'webhook "POST btc" is not registered. The workflow must be active'),
            (Workflow(method="GET"), "Did you mean to make a GET request?"),
            (Workflow(fails=True), "answered 500: Error in workflow."),
        ],
    )
    def test_n8ns_own_words_and_no_second_request(self, workflow, hook, slept, workflow_, words: str) -> None:
        workflow.register({"btc": workflow_})
        with pytest.raises(N8nRefusedError) as caught:
            post(hook, workflow.webhook("btc"))
        assert words in str(caught.value)
        assert (len(workflow.requests()), slept) == (1, [])
        assert not is_transient(caught.value)

    @pytest.mark.parametrize("status", [400, 401, 403, 409, 410, 422, 500, 501, 505])
    def test_other_statuses_fail_at_once(self, workflow, hook, status: int) -> None:
        workflow.faults({"btc": [Fault(status=status, body="No,\n\x1b[31mnot \x00this.")]})
        with pytest.raises(N8nRefusedError, match=rf"answered {status}: No, \[31mnot this\.") as caught:
            post(hook, workflow.webhook("btc"))
        assert caught.value.status == status
        assert len(workflow.requests()) == 1

    def test_wrong_key_is_refused_and_not_shown(self, workflow, hook, connect) -> None:
        connect(workflow.url, password="wr0ng-key")
        workflow.faults({"btc": [Fault(status=403, body="wr0ng-key is wrong! " + "x" * 10_000)]})
        with pytest.raises(N8nRefusedError, match=r"\*\*\* is wrong!") as caught:
            post(hook, workflow.webhook("btc"))
        assert "wr0ng-key" not in shown(caught.value)
        assert len(str(caught.value)) < 700

    def test_redirect_is_not_followed_and_names_the_host_only(self, workflow, hook) -> None:
        location = {"Location": "https://evil.example/?token=abc"}
        workflow.faults({"btc": [Fault(status=307, headers=location)]})
        with pytest.raises(N8nRefusedError, match=r"answered 307, a redirect to evil\.example, which") as caught:
            post(hook, workflow.webhook("btc"))
        assert "token" not in shown(caught.value)


class TestUnknown:
    @pytest.mark.parametrize(
        "fault",
        [Fault(truncate_after_bytes=0), Fault(delay_seconds=2), Fault(status=504), Fault(status=524)],
        ids=["dropped", "timeout", "504", "524"],
    )
    def test_lost_answer_is_unknown_and_never_sent_again(self, workflow, hook, slept, fault: Fault) -> None:
        workflow.faults({"btc": [fault]})
        with pytest.raises(N8nUnknownError, match="look into n8n's executions") as caught:
            post(hook, workflow.webhook("btc"))
        assert (len(workflow.requests()), slept) == (1, [])
        assert not is_transient(caught.value)


class TestNetwork:
    def test_refused_connection_is_tried_again(self, hook, connect, slept) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        connect(origin)
        with pytest.raises(N8nUnavailableError, match=r"cannot be connected to: .*Nothing was sent") as caught:
            post(hook, f"{origin}/webhook/btc")
        assert slept == [1, 2, 4]
        assert KEY not in shown(caught.value)

    def test_name_that_does_not_exist_is_named(self, hook, connect) -> None:
        connect()
        with pytest.raises(N8nUnavailableError, match=r"The host of https://n8n\.invalid cannot be resolved"):
            post(hook, "https://n8n.invalid/webhook/btc")

    def test_next_address_is_taken_if_the_first_refuses(self, workflow, hook, connect, monkeypatch) -> None:
        port = httpx.URL(workflow.url).port
        connect(f"http://n8n.test:{port}")
        resolves_to(monkeypatch, "::1", "127.0.0.1")
        assert post(hook, f"http://n8n.test:{port}/webhook/btc").retry_count == 0
        assert workflow.requests()[0]["headers"]["host"] == f"n8n.test:{port}"

    def test_proxy_that_would_resolve_the_name_again_is_not_used(self, workflow, hook, connect, monkeypatch) -> None:
        port = httpx.URL(workflow.url).port
        connect(f"http://n8n.test:{port}")
        resolves_to(monkeypatch, "127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as closed:
            proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        assert post(hook, f"http://n8n.test:{port}/webhook/btc").status == 200

    def test_certificate_is_that_of_the_name_not_of_the_address(self, hook, connect, tmp_path, monkeypatch) -> None:
        with tls_server(tmp_path, "n8n.test") as port:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
            resolves_to(monkeypatch, "127.0.0.1")
            connect(f"https://n8n.test:{port}", f"https://other.test:{port}")
            assert post(hook, f"https://n8n.test:{port}/webhook/btc").status == 200
            with pytest.raises(N8nRefusedError, match="has no valid certificate"):
                post(hook, f"https://other.test:{port}/webhook/btc")


class TestHostileUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1:{port}/webhook/btc",
            "http://[::1]:{port}/webhook/btc",
            "http://[::ffff:127.0.0.1]:{port}/webhook/btc",
            "http://2130706433:{port}/webhook/btc",
            "http://0x7f.1:{port}/webhook/btc",
            "http://0.0.0.0:{port}/webhook/btc",
            "http://localhost:{port}/webhook/btc",
            "http://10.0.0.1/webhook/btc",
        ],
    )
    def test_address_that_is_not_public_is_not_asked(self, workflow, hook, connect, slept, url: str) -> None:
        connect("https://n8n.example.com")
        with pytest.raises(N8nRefusedError, match="which is no public address; nothing was sent"):
            post(hook, url.format(port=httpx.URL(workflow.url).port))
        assert (workflow.requests(), slept) == ([], [])

    def test_name_that_is_public_and_private_is_not_asked(self, workflow, hook, connect, monkeypatch) -> None:
        connect()
        resolves_to(monkeypatch, "93.184.215.14", "127.0.0.1")
        with pytest.raises(N8nRefusedError, match=r"is at 127\.0\.0\.1"):
            post(hook, f"http://rebinding.test:{httpx.URL(workflow.url).port}/webhook/btc")
        assert workflow.requests() == []

    def test_name_that_changes_is_resolved_once(self, workflow, hook, connect, monkeypatch) -> None:
        port = httpx.URL(workflow.url).port
        connect(f"http://n8n.test:{port}")
        asked = resolves_to(monkeypatch, "127.0.0.1", then="93.184.215.14")
        post(hook, f"http://n8n.test:{port}/webhook/btc")
        assert asked == ["n8n.test"]

    def test_key_goes_to_no_other_origin(self, workflow, hook, connect, monkeypatch) -> None:
        # Another port of the same host, and another name of the same address, are other origins.
        connect("http://127.0.0.1:1", "https://n8n.example.com")
        monkeypatch.setattr(module, "_refuse_private", lambda *_: None)
        workflow.faults({"btc": [Fault(status=403, body="Authorization data is wrong!")]})
        with pytest.raises(N8nRefusedError, match="The key was not sent") as caught:
            post(hook, workflow.webhook("btc"))
        (request,) = workflow.requests()
        assert "authorization" not in request["headers"]
        assert KEY not in json.dumps(request) + shown(caught.value)

    @pytest.mark.parametrize(
        "url",
        ["javascript:alert(1)", "file:///etc/passwd", "ftp://n8n.example.com/", "https://", "//x", "", "http://[x"],
    )
    def test_what_is_no_http_url_is_refused(self, hook, connect, url: str) -> None:
        connect()
        with pytest.raises(N8nRefusedError, match="not one of http or https"):
            post(hook, url)

    def test_credentials_in_the_url_are_refused_and_not_shown(self, hook, connect) -> None:
        connect()
        url = "https://me:{}@n8n.example.com/webhook/btc".format("pa55")
        with pytest.raises(N8nRefusedError, match="has credentials in it") as caught:
            post(hook, url)
        assert "pa55" not in shown(caught.value)

    @pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
    def test_public_addresses(self, address: str) -> None:
        assert _is_public(address)

    @pytest.mark.parametrize(
        "address",
        [
            *("100.64.0.1", "192.168.1.1", "224.0.0.1", "255.255.255.255"),
            *("fe80::1", "fd00::1", "::", "ff02::1"),
            *("64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00::1", "::ffff:169.254.169.254"),
        ],
    )
    def test_private_addresses(self, address: str) -> None:
        assert not _is_public(address)


class TestConnection:
    @pytest.mark.parametrize("origin", ["n8n.example.com", "https://n8n.example.com/webhook", "https://a:b@c", "", 5])
    def test_origins_that_are_none_are_refused(self, hook, connect, origin: Any) -> None:
        connect(origin)
        with pytest.raises(HardError, match="allowed_origins that are not a list"):
            post(hook, "https://n8n.example.com/webhook/btc")

    def test_default_port_may_be_written_or_left_out(self, connect) -> None:
        connect("https://n8n.example.com:443", "http://N8N.example.com")
        assert N8nHook()._access.origins == {"https://n8n.example.com", "http://n8n.example.com"}

    def test_without_a_connection_there_is_no_key_and_no_origin(self, hook, monkeypatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_N8N", raising=False)
        monkeypatch.delenv("N8N_API_KEY", raising=False)
        monkeypatch.setattr(N8nHook, "get_connection", not_found)
        assert (hook._access.key, hook._access.origins) == (None, frozenset())

    def test_key_that_no_header_may_have_is_refused_and_not_shown(self, hook, connect) -> None:
        connect(password="a\nb-secret")
        with pytest.raises(HardError, match="characters that no key has") as caught:
            post(hook, "https://n8n.example.com/webhook/btc")
        assert "b-secret" not in shown(caught.value)

    def test_nothing_secret_is_logged(self, workflow, hook, caplog, capfd) -> None:
        caplog.set_level(logging.DEBUG)
        workflow.faults({"btc": [Fault(status=503, body=f"{KEY} no")]})
        post(hook, workflow.webhook("btc"))
        text = "".join([*capfd.readouterr(), caplog.text])
        assert "Attempt 1 of 4" in text
        assert KEY not in text
        assert "kpiName" not in text


def not_found(*_: object) -> None:
    raise AirflowNotFoundException


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str, then: str | None = None) -> list[str]:
    """Let names that end with ``.test`` have these addresses; returns the names that were asked for."""
    real, asked = socket.getaddrinfo, []

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not name.endswith(".test"):
            return real(host, *arguments, **named)
        asked.append(name)
        now = [then] if then and len(asked) > 1 else addresses
        return [entry for address in now for entry in real(address, *arguments, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@contextmanager
def tls_server(folder: Any, name: str) -> Iterator[int]:
    """An HTTPS server whose self-signed certificate is ``name``'s; it answers 200."""
    certificate, key = self_signed(name)
    (folder / "certificate").write_bytes(certificate)
    (folder / "key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")

    with HTTPServer(host="127.0.0.1", ssl_context=context) as server:
        server.expect_request("/webhook/btc").respond_with_data()
        yield server.port


def self_signed(name: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private
