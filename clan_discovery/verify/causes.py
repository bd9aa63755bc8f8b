"""Find the fix of a failed scrape from the scraper's error. Pure.

The texts are those of Prometheus 2.42 and 3.5 and of VictoriaMetrics 1.79 and 1.131 (tests/data/scrapers).
"""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from clan_discovery.model import Target

_FIXES: Final = (
    (
        ("connection refused", "connection reset"),
        "on {machine}: systemctl list-units '*exporter*'; another port: exporters: {{{job}: {{port: PORT}}}}",
    ),
    (
        ("no such host", "server misbehaving", "lookup "),
        "the name does not resolve: getent hosts {host}; clan-discovery explain {machine}",
    ),
    (
        ("no route to host", "network is unreachable", "host is down"),
        "no route: ip route get {host}; clan-discovery explain {machine}",
    ),
    (
        ("sample_limit", "sample limit", "samplelimit"),
        "jobs: {{{job}: {{sample_limit: 0}}}}, or a larger limit, or fewer collectors on {machine}",
    ),
    (("target_limit",), "jobs: {{{job}: {{target_limit: 0}}}}, or a larger limit"),
    (
        ("body size limit", "max_scrape_size", "maxscrapesize", "body_size_limit"),
        "a larger body_size_limit (Prometheus) or max_scrape_size (VictoriaMetrics) of job {job}",
    ),
    (
        ("certificate has expired or is not yet valid",),
        "renew its certificate: openssl s_client -connect {place} </dev/null | openssl x509 -noout -dates",
    ),
    (("unknown authority", "self-signed", "self signed"), "jobs: {{{job}: {{tls_config: {{ca_file: CA.pem}}}}}}"),
    (
        ("certificate is valid for", "certificate is not valid for", "doesn't contain any ip sans", "cannot validate"),
        "a certificate for {host}, or jobs: {{{job}: {{tls_config: {{server_name: NAME}}}}}}",
    ),
    (
        ("certificate required", "bad certificate"),
        "it asks for a client certificate: jobs: {{{job}: {{tls_config: {{cert_file: FILE, key_file: FILE}}}}}}",
    ),
    (
        ("does not look like a tls handshake", "http response to https client"),
        "it speaks plain http: exporters: {{{job}: {{scheme: http}}}}",
    ),
    (
        ("malformed http response", "malformed http status", "unexpected eof", ": eof", "http request to an https"),
        "if it speaks TLS (curl -k https://{place}): exporters: {{{job}: {{scheme: https}}}}",
    ),
    (
        ("deadline exceeded", "timeout", "timed out", "request canceled"),
        "curl -m 30 {url}: open port {port} in the firewall of {machine}, or raise scrape_timeout of job {job}",
    ),
    (
        (" 401", " 403"),
        "jobs: {{{job}: {{basic_auth: {{username: USER, password_file: FILE}}}}}}, or authorization",
    ),
    ((" 404",), "its metrics have another path: exporters: {{{job}: {{path: PATH}}}}"),
    (
        ("http status 5", "status code", "content-type", "expected", "invalid", "unsupported", "parse"),
        "what answers at {place} is no exporter, or a broken one: curl -i {url}",
    ),
)
"""Parts of errors in lower case, and what to do. The first that matches counts, so the clearest errors come first."""


def fix_of(error: str, url: str, target: Target) -> str:
    """Return what to do about a target whose scrape of this URL fails with this error, quoted for a shell."""
    # An error of VictoriaMetrics quotes the URL, whose words tell nothing.
    said = error.replace(url, "").casefold()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or target.address, parts.port or ""
    except ValueError:
        return _otherwise(target)
    for words, fix in _FIXES:
        if any(word in said for word in words):
            if (key := _set_by_its_config(fix, parts, target)) is not None:
                return f"remove `{key}` from job {target.job} of the scraper's config"
            place, machine = quote(parts.netloc), quote(target.machine)
            return fix.format(place=place, host=quote(host), port=port, url=quote(url), machine=machine, job=target.job)
    return _otherwise(target)


def _set_by_its_config(fix: str, url: SplitResult, target: Target) -> str | None:
    """Return the key of the scraper's config that is to blame for a scheme or path other than ours; None if none is."""
    scheme = target.labels.get("__scheme__", "http")
    path = target.labels.get("__metrics_path__", "/metrics")
    if "{{scheme: " in fix and url.scheme != scheme:
        return f"scheme: {url.scheme}"
    if "{{path: " in fix and url.path != path:
        return f"metrics_path: {url.path}"
    return None


def _otherwise(target: Target) -> str:
    return f"clan-discovery doctor --live {quote(target.machine)}"
