"""The scrape config of a job, as Prometheus's `scrape_config`: imported only where a config has `jobs`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from clan_discovery.config.values import File, ScrapeConfig, one_or_more
from clan_discovery.syntax.duration import PATTERN, duration
from clan_discovery.syntax.labels import parameter_complaint, path_complaint
from clan_discovery.syntax.relabel import check_expression
from clan_discovery.syntax.secret import HIDDEN, has_secret

if TYPE_CHECKING:
    from pathlib import Path

    from clan_discovery.model import Json


def _interval(text: object) -> object:
    duration(text, least="1ms")
    return text


def _metrics_path(path: str) -> str:
    if complaint := path_complaint(path):
        raise ValueError(complaint)
    return path


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://", "socks5://")):
        shown = HIDDEN if "@" in text else repr(text)  # it may hold a password
        raise ValueError(f"{shown} is not a URL: write http://host:port")
    if has_secret(text):
        raise ValueError("the URL holds a password, which everybody who reads the config would know: remove it")
    if not text.isprintable() or " " in text:
        raise ValueError("the URL holds a space or a control character: remove it")
    return text


# Prometheus refuses a config that sets one of these (prometheus/common: config/headers.go).
_RESERVED: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "user-agent",
        "www-authenticate",
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-security-token",
        "x-prometheus-remote-read-version",
        "x-prometheus-remote-write-version",
        "x-prometheus-scrape-timeout-seconds",
    }
)


def _header(name: str) -> str:
    if _is_header(name) is None:
        raise ValueError(f"{name!r} is no name of a header: it has letters, digits and dashes")
    if name.casefold() == "authorization":
        raise ValueError("is refused by Prometheus: write `basic_auth` or `authorization` in the job instead")
    if name.casefold() in _RESERVED:
        raise ValueError("is a header that Prometheus sets itself: remove it")
    return name


_is_header: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_Header: TypeAlias = Annotated[StrictStr, AfterValidator(_header)]
_IntervalText: TypeAlias = Annotated[str, Field(pattern=PATTERN, examples=["15s", "1m", "5m"])]
_Interval: TypeAlias = Annotated[str, BeforeValidator(_interval, json_schema_input_type=_IntervalText)]
_Values: TypeAlias = Annotated[
    list[StrictStr], BeforeValidator(one_or_more, json_schema_input_type=StrictStr | list[StrictStr])
]
_Url: TypeAlias = Annotated[StrictStr, AfterValidator(_url)]
_Limit: TypeAlias = Annotated[int, Field(strict=True, ge=0)]
_TlsVersion: TypeAlias = Literal["TLS10", "TLS11", "TLS12", "TLS13"]


class _ScrapeModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class TlsConfig(_ScrapeModel):
    """How an https target is verified, and what is shown to it."""

    ca_file: File | None = Field(
        default=None, description="The CA certificate that verifies the target.", examples=["/etc/ssl/clan-ca.pem"]
    )
    cert_file: File | None = Field(
        default=None, description="The client certificate.", examples=["/run/secrets/prometheus.pem"]
    )
    key_file: File | None = Field(
        default=None, description="The key of the client certificate.", examples=["/run/secrets/prometheus.key"]
    )
    server_name: StrictStr | None = Field(
        default=None, description="The name that the target's certificate must have.", examples=["db.example.org"]
    )
    insecure_skip_verify: StrictBool = Field(default=False, description="Accept any certificate.")
    min_version: _TlsVersion | None = Field(default=None, description="The lowest version of TLS.")
    max_version: _TlsVersion | None = Field(default=None, description="The highest version of TLS.")

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("needs `cert_file` and `key_file` together")
        return self


class BasicAuth(_ScrapeModel):
    """A user name and a password in a file."""

    username: StrictStr | None = Field(default=None, description="The user name.", examples=["prometheus"])
    username_file: File | None = Field(
        default=None, description="A file with the user name.", examples=["/run/secrets/scrape-user"]
    )
    password_file: File | None = Field(
        default=None, description="A file with the password.", examples=["/run/secrets/scrape-password"]
    )

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if self.username is not None and self.username_file is not None:
            raise ValueError("takes `username` or `username_file`, not both")
        return self


class Authorization(_ScrapeModel):
    """The header `Authorization`, with credentials in a file."""

    type: StrictStr = Field(default="Bearer", description="The scheme of the header. `basic_auth` is for Basic.")
    credentials_file: File | None = Field(
        default=None, description="A file with the credentials, such as a token.", examples=["/run/secrets/token"]
    )

    @model_validator(mode="after")
    def _not_basic(self) -> Self:
        if self.type.strip().casefold() == "basic":
            raise ValueError("has the type Basic: write `basic_auth` instead of `authorization`")
        if len(self.type.split()) != 1:
            raise ValueError("has a `type` that is not one word: credentials go into the file `credentials_file`")
        return self


class OAuth2(_ScrapeModel):
    """OAuth 2.0 with client credentials."""

    client_id: StrictStr = Field(description="The ID of the client.", examples=["prometheus"])
    client_secret_file: File | None = Field(
        default=None, description="A file with the client's secret.", examples=["/run/secrets/oauth2"]
    )
    token_url: _Url = Field(description="Where tokens are fetched.", examples=["https://sso.example.org/token"])
    scopes: list[StrictStr] = Field(default=[], description="The scopes to ask for.", examples=[["metrics"]])
    endpoint_params: dict[StrictStr, StrictStr] = Field(
        default={}, description="More parameters of the request for a token.", examples=[{"audience": "metrics"}]
    )
    tls_config: TlsConfig | None = Field(default=None, description="TLS to the token's server.")
    proxy_url: _Url | None = Field(
        default=None, description="The proxy to the token's server.", examples=["http://proxy:3128"]
    )


class HttpHeader(_ScrapeModel):
    """The values of a header of the scrape request."""

    values: list[StrictStr] = Field(default=[], description="Values that anybody may read.", examples=[["home"]])
    files: list[File] = Field(default=[], description="Files with secret values.", examples=[["/run/secrets/header"]])


_NEEDS_TARGET = frozenset({"replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal"})


class RelabelConfig(_ScrapeModel):
    """One step of relabelling."""

    source_labels: list[StrictStr] = Field(
        default=[], description="Labels whose values are joined.", examples=[["__meta_clan_machine_tags"]]
    )
    separator: StrictStr = Field(default=";", description="What the values are joined with.")
    regex: StrictStr = Field(default="(.*)", description="The regular expression (RE2) that the value must match.")
    modulus: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        default=None, description="The modulus of `hashmod`.", examples=[2]
    )
    target_label: StrictStr | None = Field(
        default=None, description="The label that gets the result.", examples=["site"]
    )
    replacement: StrictStr = Field(default="$1", description="The result, with the groups of `regex`.")
    action: Literal[
        "replace",
        "keep",
        "drop",
        "keepequal",
        "dropequal",
        "hashmod",
        "labelmap",
        "labeldrop",
        "labelkeep",
        "lowercase",
        "uppercase",
    ] = Field(default="replace", description="What to do.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.action in _NEEDS_TARGET and not self.target_label:
            raise ValueError(f"the action {self.action} needs `target_label`")
        if self.action == "hashmod" and self.modulus is None:
            raise ValueError("the action hashmod needs `modulus`")
        check_expression(self.regex)
        return self


class ScrapeConfigModel(_ScrapeModel):
    """Settings of one job, merged into its scrape config, under the names that Prometheus gives them.

    Secrets are given by file. `scheme`, `metrics_path` and `params` are written into the target files. A version is the
    oldest Prometheus that knows the key.
    """

    scrape_interval: _Interval | None = Field(default=None, description="How often the targets are scraped.")
    scrape_timeout: _Interval | None = Field(default=None, description="The time limit of one scrape.")
    scheme: Literal["http", "https"] | None = Field(
        default=None,
        description="The scheme of each target. A `scheme` in `exporters` or in the inventory wins. Default: http.",
    )
    metrics_path: Annotated[StrictStr, AfterValidator(_metrics_path)] | None = Field(
        default=None,
        description="The path of each target. A path in `exporters` or in the inventory wins. Default: that of the "
        "exporter type, mostly /metrics.",
        examples=["/metrics"],
    )
    params: dict[StrictStr, _Values] = Field(
        default={},
        description="URL parameters, each with a value or a list of values. Those with one value are written into the "
        "target files; a parameter in `exporters` or in the inventory wins.",
        examples=[{"module": ["http_2xx"]}],
    )
    basic_auth: BasicAuth | None = Field(default=None, description="HTTP basic authentication.")
    authorization: Authorization | None = Field(default=None, description="The header `Authorization`.")
    oauth2: OAuth2 | None = Field(default=None, description="OAuth 2.0.")
    tls_config: TlsConfig | None = Field(default=None, description="TLS to the targets.")
    http_headers: dict[_Header, HttpHeader] = Field(default={}, description="More headers, by name. Prometheus 2.55.")
    proxy_url: _Url | None = Field(
        default=None, description="The proxy through which targets are scraped.", examples=["http://proxy:3128"]
    )
    no_proxy: StrictStr | None = Field(
        default=None,
        description="Hosts and networks without a proxy, separated by commas. Prometheus 2.43.",
        examples=["10.0.0.0/8"],
    )
    proxy_from_environment: StrictBool = Field(
        default=False, description="Take the proxy from the environment. Prometheus 2.43."
    )
    follow_redirects: StrictBool = Field(default=True, description="Follow HTTP redirects.")
    enable_http2: StrictBool = Field(default=True, description="Allow HTTP/2.")
    enable_compression: StrictBool = Field(default=True, description="Ask for a compressed response. Prometheus 2.49.")
    honor_labels: StrictBool = Field(
        default=False, description="Where a label of the response and of the target differ, keep that of the response."
    )
    honor_timestamps: StrictBool = Field(default=True, description="Keep the timestamps of the response.")
    track_timestamps_staleness: StrictBool = Field(
        default=False, description="Mark series with timestamps of their own as stale. Prometheus 2.48."
    )
    scrape_protocols: list[StrictStr] = Field(
        default=[],
        description="Exposition formats, by preference. Prometheus 2.49.",
        examples=[["PrometheusText0.0.4"]],
    )
    fallback_scrape_protocol: StrictStr | None = Field(
        default=None,
        description="The format of a response without a valid Content-Type. Prometheus 3.0.",
        examples=["PrometheusText0.0.4"],
    )
    body_size_limit: Annotated[StrictStr, Field(pattern="^[0-9]+([KMGTPE]i?)?B$")] | None = Field(
        default=None, description="The largest response.", examples=["10MB"]
    )
    sample_limit: _Limit | None = Field(default=None, description="The most samples of a scrape.", examples=[10000])
    target_limit: _Limit | None = Field(default=None, description="The most targets of the job.", examples=[500])
    label_limit: _Limit | None = Field(default=None, description="The most labels of a sample.", examples=[50])
    label_name_length_limit: _Limit | None = Field(
        default=None, description="The longest name of a label.", examples=[200]
    )
    label_value_length_limit: _Limit | None = Field(
        default=None, description="The longest value of a label.", examples=[1000]
    )
    keep_dropped_targets: _Limit | None = Field(
        default=None,
        description="How many dropped targets are kept for the status page. Prometheus 2.47.",
        examples=[100],
    )
    relabel_configs: list[RelabelConfig] = Field(
        default=[],
        description="Relabelling of targets, before the scrape.",
        examples=[[{"source_labels": ["__meta_clan_machine_tags"], "target_label": "tags"}]],
    )
    metric_relabel_configs: list[RelabelConfig] = Field(
        default=[],
        description="Relabelling of samples, after the scrape.",
        examples=[[{"source_labels": ["__name__"], "regex": "go_.*", "action": "drop"}]],
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("basic_auth", "authorization", "oauth2") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"takes one of {', '.join(f'`{name}`' for name in given)}: Prometheus sends one")
        if self.scrape_interval is None or self.scrape_timeout is None:
            return self
        if duration(self.scrape_timeout) > duration(self.scrape_interval):
            raise ValueError("`scrape_timeout` is longer than `scrape_interval`: lower the one or raise the other")
        return self


def read_scrape_config(value: Json, directory: Path | None) -> ScrapeConfig:
    """Check the scrape config of a job. Relative paths start at `directory`.

    A parameter with several values, or with a name that no label can have, cannot go into a target file: it is part of
    the rest.

    Raises:
        pydantic.ValidationError: something in it is wrong.
    """
    model = ScrapeConfigModel.model_validate(value, context=directory)
    rest = model.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    scheme, path = rest.pop("scheme", None), rest.pop("metrics_path", None)
    rest.pop("params", None)
    params: dict[str, str] = {}
    for name, values in model.params.items():
        if len(values) == 1 and parameter_complaint(name) is None:
            params[name] = values[0]
    if others := {name: values for name, values in model.params.items() if name not in params}:
        rest["params"] = others
    return ScrapeConfig(scheme=scheme, metrics_path=path, params=params, rest=rest)
