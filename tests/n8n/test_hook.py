"""N8nHook against n8n's recorded responses, hostile URLs and network failures: one execution, or a correct error."""

from __future__ import annotations

import asyncio
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

from aggregator.core.errors import PermanentError, is_transient
from aggregator.n8n import addresses
from aggregator.n8n.errors import N8nError, N8nRefusedError, N8nUnavailableError, N8nUnknownError
from aggregator.n8n.hook import Delivery, N8nHook
from dev.n8n import faults
from dev.n8n.app import Workflow
from dev.n8n.fixtures import KEY
from dev.stand_in.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from dev.n8n.client import N8nControl

PAYLOAD = {"kpiId": "btc/🦊", "metadata": {"kpiName": "{{ $json.x }} {{ var.value.secret }}"}}
JSON = {"Content-Type": "application/json; charset=utf-8"}
HTML = {"Content-Type": "text/html; charset=utf-8"}
TRIGGERED, UNAVAILABLE, REFUSED, UNKNOWN = None, N8nUnavailableError, N8nRefusedError, N8nUnknownError
RESPONSES: dict[str, tuple[Fault | Workflow, type[N8nError] | None, int]] = {
    "workflow started": (Workflow(), TRIGGERED, 1),
    "201 of a workflow": (Fault(status=201, body="{}", headers=JSON), TRIGGERED, 1),
    "204 of a workflow": (Fault(status=204), TRIGGERED, 1),
    "HTML of a workflow": (Fault(status=200, body="<h1>Thanks</h1>", headers=HTML), TRIGGERED, 1),
    "empty HTML of a workflow": (Fault(status=200, headers=HTML), TRIGGERED, 1),
    "starting up": (faults.STARTING, UNAVAILABLE, 4),
    "HTML 404": (faults.UNREGISTERED, UNAVAILABLE, 4),
    "text/plain 404": (faults.PROXY_RESTARTING, UNAVAILABLE, 4),
    "JSON 404, not registered": (faults.REPUBLISHING, REFUSED, 4),
    "inactive workflow": (Workflow(active=False), REFUSED, 4),
    "JSON 404 of a workflow": (Fault(status=404, body='{"error": "No such coin"}', headers=JSON), REFUSED, 1),
    "500, workflow failed": (Workflow(fails=True), REFUSED, 1),
    "500, problem": (Workflow(breaks=True), UNKNOWN, 1),
    "500, problem, from a fault": (faults.PROBLEM, UNKNOWN, 1),
    "deep JSON": (Fault(status=422, body="[" * 16_000, headers=JSON), REFUSED, 1),
    **{f"{status}": (Fault(status=status), UNAVAILABLE, 4) for status in (408, 425, 429, 503)},
    **{f"Cloudflare {status}": (Fault(status=status), UNAVAILABLE, 4) for status in (521, 523, 525, 526, 530)},
    **{f"{status}": (Fault(status=status), UNKNOWN, 1) for status in (502, 504)},
    **{f"Cloudflare {status}": (Fault(status=status), UNKNOWN, 1) for status in (520, 522, 524)},
    **{f"{status}": (Fault(status=status), REFUSED, 1) for status in (400, 401, 403, 409, 410, 422, 500, 501, 505)},
    "redirect": (Fault(status=307, headers={"Location": "https://n8n.example.com"}), REFUSED, 1),
    "no response": (Fault(truncate_after_bytes=0), UNKNOWN, 1),
    "late response": (Fault(delay_seconds=2), UNKNOWN, 1),
    "startup page cut short": (faults.STARTING.model_copy(update={"truncate_after_bytes": 7}), UNKNOWN, 1),
}


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def connect(*origins: str, password: str = KEY, **extra: Any) -> None:
        fields = {"conn_type": "http", "password": password, "extra": {"allowed_origins": origins, **extra}}
        monkeypatch.setenv("AIRFLOW_CONN_N8N", json.dumps(fields))

    return connect


@pytest.fixture
def workflow(n8n: N8nControl, connect: Callable[..., None]) -> N8nControl:
    """An n8n with one workflow at ``/webhook/btc``, allowed by the connection."""
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


def printed(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


class TestDelivery:
    def test_request_has_the_payload_unchanged_and_the_key(self, workflow: N8nControl, hook: N8nHook) -> None:
        assert post(hook, workflow.webhook("btc")) == Delivery(200, 0)
        (execution,) = workflow.executions()
        assert execution["body"] == PAYLOAD
        assert execution["idempotency_key"] == "trace_20261115_120000_abcdefgh/btc%F0%9F%A6%8A"
        (request,) = workflow.requests()
        assert request["headers"]["authorization"] == f"Bearer {KEY}"
        assert request["headers"]["host"] == httpx.URL(workflow.url).netloc.decode()

    def test_connection_without_a_key_uses_n8n_api_key(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(workflow.url, password="")
        monkeypatch.setenv("N8N_API_KEY", KEY)
        post(hook, workflow.webhook("btc"))
        assert len(workflow.executions()) == 1

    @pytest.mark.parametrize("connected", [True, False])
    def test_blanks_around_the_key_are_removed(
        self,
        workflow: N8nControl,
        hook: N8nHook,
        connect: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        connected: bool,
    ) -> None:
        connect(workflow.url, password=f" {KEY}\n" if connected else "")
        monkeypatch.setenv("N8N_API_KEY", f"{KEY}\r\n")
        post(hook, workflow.webhook("btc"))
        (request,) = workflow.requests()
        assert request["headers"]["authorization"] == f"Bearer {KEY}"

    @pytest.mark.parametrize(("response", "outcome", "requests"), RESPONSES.values(), ids=RESPONSES)
    def test_response_has_the_expected_outcome_and_number_of_requests(
        self,
        workflow: N8nControl,
        hook: N8nHook,
        slept: list[float],
        response: Fault | Workflow,
        outcome: type[N8nError] | None,
        requests: int,
    ) -> None:
        if isinstance(response, Workflow):
            workflow.register({"btc": response})
        else:
            workflow.faults({"btc": [response.model_copy(update={"times": None})]})
        if outcome is None:
            assert post(hook, workflow.webhook("btc")).retry_count == 0
        else:
            with pytest.raises(outcome) as caught:
                post(hook, workflow.webhook("btc"))
            assert isinstance(caught.value, outcome)
            assert caught.value.retry_count == requests - 1
            assert is_transient(caught.value) is (outcome is UNAVAILABLE)
        assert len(workflow.requests()) == requests
        assert slept == [1, 2, 4][: requests - 1]
        assert len(workflow.executions()) <= 1

    def test_starting_n8n_executes_once_when_it_is_ready(
        self, workflow: N8nControl, hook: N8nHook, slept: list[float]
    ) -> None:
        workflow.boot(starting=2, unregistered=1)
        assert post(hook, workflow.webhook("btc")) == Delivery(200, 3)
        assert slept == [1, 2, 4]
        assert len(workflow.executions()) == 1

    def test_fourth_failed_attempt_is_a_transient_error(self, workflow: N8nControl, hook: N8nHook) -> None:
        workflow.boot(starting=0, unregistered=4)
        with pytest.raises(N8nUnavailableError, match=r"returned 404: Error Cannot POST /webhook\.") as caught:
            post(hook, workflow.webhook("btc"))
        assert caught.value.status == 404

    def test_read_timeout_is_a_setting(
        self, workflow: N8nControl, slept: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("N8N_READ_TIMEOUT_SECONDS", "1")
        workflow.faults({"btc": [Fault(delay_seconds=2)]})
        with pytest.raises(N8nUnknownError, match="raise N8N_READ_TIMEOUT_SECONDS"):
            post(N8nHook(), workflow.webhook("btc"))

    def test_retry_after_sets_the_wait(self, workflow: N8nControl, hook: N8nHook, slept: list[float]) -> None:
        in_twenty = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
        workflow.faults({"btc": [Fault(status=429, headers={"Retry-After": value}) for value in ("7", in_twenty)]})
        assert post(hook, workflow.webhook("btc")).retry_count == 2
        assert slept[0] == 7
        assert 10 < slept[1] <= 20

    def test_long_retry_after_is_raised_without_a_wait(
        self, workflow: N8nControl, hook: N8nHook, slept: list[float]
    ) -> None:
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
            (Workflow(fails=True), "returned 500: Error in workflow."),
        ],
    )
    def test_error_contains_the_message_of_n8n(
        self, workflow: N8nControl, hook: N8nHook, workflow_: Workflow, words: str
    ) -> None:
        workflow.register({"btc": workflow_})
        with pytest.raises(N8nRefusedError) as caught:
            post(hook, workflow.webhook("btc"))
        assert words in str(caught.value)

    def test_message_is_one_printable_line(self, workflow: N8nControl, hook: N8nHook) -> None:
        body = b'{"message": "No,\\n\\u001b[31mnot \\u0000\\ud800this."}'.decode()
        workflow.faults({"btc": [Fault(status=422, body=body)]})
        with pytest.raises(N8nRefusedError, match=r"returned 422: No, \[31mnot this\.") as caught:
            post(hook, workflow.webhook("btc"))
        assert caught.value.status == 422

    def test_wrong_key_is_refused_and_redacted(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None]
    ) -> None:
        connect(workflow.url, password="wr0ng-key")
        workflow.faults({"btc": [Fault(status=403, body="wr0ng-key is wrong! " + "x" * 10_000)]})
        with pytest.raises(N8nRefusedError, match=r"\*\*\* is wrong!") as caught:
            post(hook, workflow.webhook("btc"))
        assert "wr0ng-key" not in printed(caught.value)
        assert len(str(caught.value)) < 700

    def test_redirect_is_not_followed_and_only_its_host_is_named(self, workflow: N8nControl, hook: N8nHook) -> None:
        location = {"Location": "https://evil.example/?token=abc"}
        workflow.faults({"btc": [Fault(status=307, headers=location)]})
        with pytest.raises(N8nRefusedError, match=r"returned 307, a redirect to evil\.example, which") as caught:
            post(hook, workflow.webhook("btc"))
        assert "token" not in printed(caught.value)


class TestUnknown:
    @pytest.mark.parametrize(
        "fault",
        [Fault(truncate_after_bytes=0), Fault(delay_seconds=2), Fault(status=504), faults.PROBLEM],
        ids=["dropped", "timeout", "504", "problem"],
    )
    def test_unknown_outcome_is_not_repeated_and_names_the_executions(
        self, workflow: N8nControl, hook: N8nHook, fault: Fault
    ) -> None:
        workflow.faults({"btc": [fault]})
        with pytest.raises(N8nUnknownError, match=r"the request is not repeated\. Check n8n's executions"):
            post(hook, workflow.webhook("btc"))


class TestNetwork:
    def test_refused_connection_is_retried(
        self, hook: N8nHook, connect: Callable[..., None], slept: list[float]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        connect(origin)
        with pytest.raises(N8nUnavailableError, match=r"Connecting to .* failed: .*Nothing was sent") as caught:
            post(hook, f"{origin}/webhook/btc")
        assert slept == [1, 2, 4]
        assert KEY not in printed(caught.value)

    def test_unresolvable_host_is_named(self, hook: N8nHook, connect: Callable[..., None]) -> None:
        connect()
        with pytest.raises(N8nUnavailableError, match=r"The host of https://n8n\.invalid cannot be resolved"):
            post(hook, "https://n8n.invalid/webhook/btc")

    def test_second_address_is_used_if_the_first_refuses(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = httpx.URL(workflow.url).port
        connect(f"http://n8n.test:{port}")
        resolve_to(monkeypatch, "::1", "127.0.0.1")
        assert post(hook, f"http://n8n.test:{port}/webhook/btc").retry_count == 0
        assert workflow.requests()[0]["headers"]["host"] == f"n8n.test:{port}"

    def test_proxies_of_the_environment_are_not_used(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = httpx.URL(workflow.url).port
        connect(f"http://n8n.test:{port}")
        resolve_to(monkeypatch, "127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as closed:
            proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        assert post(hook, f"http://n8n.test:{port}/webhook/btc").status == 200

    def test_certificate_is_checked_against_the_host_name(
        self, hook: N8nHook, connect: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with tls_server(tmp_path, "n8n.test") as port:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
            resolve_to(monkeypatch, "127.0.0.1")
            connect(f"https://n8n.test:{port}", f"https://other.test:{port}")
            assert post(hook, f"https://n8n.test:{port}/webhook/btc").status == 200
            with pytest.raises(N8nRefusedError, match=r"certificate of .* is not valid"):
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
            "http://192.0.0.192/opc/v2/instance",
            "http://168.63.129.16/machine?comp=goalstate",
            "http://[::127.0.0.1]:{port}/webhook/btc",
            "http://[::ffff:0:7f00:1]:{port}/webhook/btc",
        ],
    )
    def test_private_address_is_not_called(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None], slept: list[float], url: str
    ) -> None:
        connect("https://n8n.example.com")
        with pytest.raises(N8nRefusedError, match=r"which is not a public address\. Nothing was sent"):
            post(hook, url.format(port=httpx.URL(workflow.url).port))
        assert (workflow.requests(), slept) == ([], [])

    def test_host_with_a_public_and_a_private_address_is_not_called(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect()
        resolve_to(monkeypatch, "93.184.215.14", "127.0.0.1")
        with pytest.raises(N8nRefusedError, match=r"resolves to 127\.0\.0\.1"):
            post(hook, f"http://rebinding.test:{httpx.URL(workflow.url).port}/webhook/btc")
        assert workflow.requests() == []

    def test_lookup_for_an_allowed_origin_allows_no_other_origin_of_its_host(
        self, hook: N8nHook, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            host = f"n8n.test:{closed.getsockname()[1]}"
        connect(f"https://{host}")
        resolve_to(monkeypatch, "127.0.0.1")

        async def key() -> str:
            return "a"

        async def send_both() -> list[Any]:
            requests = [hook.request(f"{scheme}://{host}/webhook/btc", PAYLOAD, key) for scheme in ("https", "http")]
            return await asyncio.gather(*requests, return_exceptions=True)

        assert [type(error) for error in asyncio.run(send_both())] == [N8nUnavailableError, N8nRefusedError]

    def test_host_is_resolved_once(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = httpx.URL(workflow.url).port
        connect(f"http://n8n.test:{port}")
        lookups = resolve_to(monkeypatch, "127.0.0.1", then="93.184.215.14")
        post(hook, f"http://n8n.test:{port}/webhook/btc")
        assert lookups == ["n8n.test"]

    def test_key_is_not_sent_to_other_origins(
        self, workflow: N8nControl, hook: N8nHook, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Another port of the same host is another origin, and so is another name of the same address.
        connect("http://127.0.0.1:1", "https://n8n.example.com")
        monkeypatch.setattr(addresses, "is_public", lambda _: True)
        workflow.faults({"btc": [Fault(status=403, body="Authorization data is wrong!")]})
        with pytest.raises(N8nRefusedError, match="The API key was not sent") as caught:
            post(hook, workflow.webhook("btc"))
        (request,) = workflow.requests()
        assert "authorization" not in request["headers"]
        assert KEY not in json.dumps(request) + printed(caught.value)

    @pytest.mark.parametrize(
        "url",
        ["javascript:alert(1)", "file:///etc/passwd", "ftp://n8n.example.com/", "https://", "//x", "", "http://[x"],
    )
    def test_url_that_is_not_http_is_refused(self, hook: N8nHook, connect: Callable[..., None], url: str) -> None:
        connect()
        with pytest.raises(N8nRefusedError, match="not an http or https URL"):
            post(hook, url)

    def test_credentials_in_the_url_are_refused_and_redacted(self, hook: N8nHook, connect: Callable[..., None]) -> None:
        connect()
        url = "https://me:{}@n8n.example.com/webhook/btc".format("pa55")
        with pytest.raises(N8nRefusedError, match="contains credentials") as caught:
            post(hook, url)
        assert "pa55" not in printed(caught.value)


class TestConnection:
    @pytest.mark.parametrize("origin", ["n8n.example.com", "https://n8n.example.com/webhook", "https://a:b@c", "", 5])
    def test_invalid_allowed_origins_are_refused(
        self, hook: N8nHook, connect: Callable[..., None], origin: Any
    ) -> None:
        connect(origin)
        with pytest.raises(PermanentError, match=r"allowed_origins in the extra .* is not a list"):
            post(hook, "https://n8n.example.com/webhook/btc")

    def test_default_port_and_case_of_an_origin_do_not_matter(self, connect: Callable[..., None]) -> None:
        connect("https://n8n.example.com:443", "http://N8N.example.com")
        assert N8nHook()._access.origins == {"https://n8n.example.com", "http://n8n.example.com"}

    def test_missing_connection_has_no_key_and_no_origins(self, hook: N8nHook, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_N8N", raising=False)
        monkeypatch.delenv("N8N_API_KEY", raising=False)
        monkeypatch.setattr(N8nHook, "get_connection", not_found)
        assert (hook._access.key, hook._access.origins) == (None, frozenset())

    def test_key_that_is_not_a_header_value_is_refused_and_redacted(
        self, hook: N8nHook, connect: Callable[..., None]
    ) -> None:
        connect(password="a\nb-secret")
        with pytest.raises(PermanentError, match="characters that a header cannot have") as caught:
            post(hook, "https://n8n.example.com/webhook/btc")
        assert "b-secret" not in printed(caught.value)

    def test_key_and_payload_are_not_logged(
        self, workflow: N8nControl, hook: N8nHook, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        caplog.set_level(logging.DEBUG)
        workflow.faults({"btc": [Fault(status=503, body=f"{KEY} no")]})
        post(hook, workflow.webhook("btc"))
        text = "".join([*capfd.readouterr(), caplog.text])
        assert "attempt=1 attempts=4" in text
        assert KEY not in text
        assert "kpiName" not in text


def not_found(*_: object) -> None:
    raise AirflowNotFoundException


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str, then: str | None = None) -> list[str]:
    """Resolve names that end with ``.test`` to these addresses. Returns the list of lookups."""
    real, lookups = socket.getaddrinfo, list[str]()

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not name.endswith(".test"):
            return real(host, *arguments, **named)
        lookups.append(name)
        now = [then] if then and len(lookups) > 1 else addresses
        return [entry for address in now for entry in real(address, *arguments, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return lookups


@contextmanager
def tls_server(folder: Any, name: str) -> Iterator[int]:
    """An HTTPS server with a self-signed certificate for ``name``. It responds 200."""
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
