"""The fixes of failed scrapes, from the errors of real scrapers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clan_discovery.verify.causes import fix_of
from tests.support.answering import recorded_targets

URL = "http://127.0.0.3:9401/metrics"
(TARGET, *_) = (target for target in recorded_targets() if (target.job, target.machine) == ("node", "web"))


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (f'Get "{URL}": dial tcp 127.0.0.3:9401: connect: connection refused', "exporters: {node: {port: PORT}}"),
        (f'error when scraping "{URL}" with timeout 900ms: timeout', "open port 9401 in the firewall of web"),
        (f'Get "{URL}": context deadline exceeded', "open port 9401 in the firewall of web"),
        (f'Get "{URL}": dial tcp: lookup web.lan on 127.0.0.53:53: no such host', "getent hosts 127.0.0.3"),
        (f'Get "{URL}": EOF', "exporters: {node: {scheme: https}}"),
        (f'Get "{URL}": tls: first record does not look like a TLS handshake', "exporters: {node: {scheme: http}}"),
        ("server returned HTTP status 401 Unauthorized", "basic_auth"),
        (f'unexpected status code returned when scraping "{URL}": 401; expecting 200', "basic_auth"),
        (
            f'unexpected status code returned when scraping "{URL}": 404; expecting 200',
            "exporters: {node: {path: PATH}}",
        ),
        ("server returned HTTP status 404 Not Found", "exporters: {node: {path: PATH}}"),
        ("server returned HTTP status 502 Bad Gateway", f"curl -i {URL}"),
        ("sample limit exceeded", "jobs: {node: {sample_limit: 0}}"),
        ("target_limit exceeded (number of targets: 2, limit: 1)", "jobs: {node: {target_limit: 0}}"),
        ('"INVALID" is not a valid start token', f"curl -i {URL}"),
        (f'Get "{URL}": x509: certificate signed by unknown authority', "{tls_config: {ca_file: CA.pem}}"),
        (f'Get "{URL}": x509: certificate is valid for 127.0.0.2, not 127.0.0.3', "server_name"),
        (f'Get "{URL}": x509: certificate has expired or is not yet valid: current time', "renew its certificate"),
        ("what nobody has ever seen", "clan-discovery doctor --live web"),
    ],
)
def test_an_error_has_its_fix(error: str, fix: str) -> None:
    """The port 9401 of the URL is no status."""
    assert fix in fix_of(error, URL, TARGET)


def test_scheme_or_path_of_the_scrape_config_is_to_be_removed() -> None:
    """The target says neither: a key of our config would change nothing."""
    error = f'Get "{URL}": tls: first record does not look like a TLS handshake'
    assert fix_of(error, URL.replace("http:", "https:"), TARGET).startswith("remove `scheme: https` from job node ")
    found = fix_of("server returned HTTP status 404 Not Found", URL.replace("/metrics", "/nope"), TARGET)
    assert found.startswith("remove `metrics_path: /nope` from job node ")


@given(error=st.text(), url=st.text())
def test_any_text_has_a_fix(error: str, url: str) -> None:
    """Also one with braces, and a URL that is none."""
    assert fix_of(error, url, msgspec.structs.replace(TARGET, address="{a}"))


def test_url_in_a_fix_is_one_word_of_a_shell() -> None:
    """Probes have parameters, and `&` would end the command."""
    url = "http://127.0.0.1:9115/probe?module=http_2xx&target=web"
    assert fix_of("context deadline exceeded", url, TARGET).startswith(f"curl -m 30 '{url}': open port 9115")
    odd = msgspec.structs.replace(TARGET, machine="$(reboot)")
    assert fix_of("what nobody has ever seen", url, odd) == "clan-discovery doctor --live '$(reboot)'"
