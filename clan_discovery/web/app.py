"""The WSGI application: routes, and what each answers."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import wrap_file

from clan_discovery.errors import describe
from clan_discovery.garbage import without_collection
from clan_discovery.syntax.counting import and_more
from clan_discovery.syntax.endpoint import join_endpoint
from clan_discovery.web.server import HEADERS
from clan_discovery.web.site import Body, Unserved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from clan_discovery.web.access import Access
    from clan_discovery.web.site import Cycle, Site
    from clan_discovery.web.status import Answer, PageRequest

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
_METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
_NO_CYCLE: Final = "no refresh cycle has succeeded yet: see the log"
_LISTED_MOST: Final = 50
_METHODS: Final = ("GET", "HEAD")


class App:
    """Answers each request from the site of that moment. With `metrics_only`, only /metrics and /healthz."""

    def __init__(self, site: Callable[[], Site], access: Access, *, metrics_only: bool = False) -> None:
        self._site = site
        self._access = access
        self._answers: dict[str, Callable[[Request, Site, Mapping[str, str]], Response]] = {
            "/metrics": _metrics,
            "/healthz": _health,
        }
        if not metrics_only:
            self._answers |= {
                "/sd": _every_list,
                "/sd/<job>": _list,
                "/api/v1/resolution": _resolution,
            }
            from clan_discovery.web.status import ANSWERS  # noqa: PLC0415 - only where pages are served

            self._answers |= {path: partial(_page, answer) for path, answer in ANSWERS.items()}
        rules = [Rule(path, endpoint=path) for path in self._answers]
        self._routes = Map(rules, strict_slashes=False, merge_slashes=False)
        self._paths = " ".join(self._answers).replace("<path:name>", "<name>")

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        try:
            with without_collection():  # most of what a page of a large fleet is made of is kept for the next one
                response = self._answer(request)
        except Exception as error:  # noqa: BLE001 - a request must not end the thread
            response = text(500, f"internal error: {describe(error)}")
        response.headers.extend(HEADERS)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        if request.method not in _METHODS:
            response = text(405, "use GET or HEAD")
            response.headers["Allow"] = ", ".join(_METHODS)
            return response
        environ = request.environ
        peer = join_endpoint(str(environ.get("REMOTE_ADDR")), int(environ.get("REMOTE_PORT", 0)))
        refusal = self._access.refusal(environ.get("HTTP_HOST"), peer)
        if refusal is not None:
            return text(refusal.status, refusal.reason)
        if not str(environ.get("REQUEST_URI", "/")).startswith("/"):  # a request to a proxy
            return text(404, f"see {self._paths}")
        try:
            path, words = self._routes.bind("localhost").match(request.path)
        except NotFound:
            return text(404, f"see {self._paths}")
        except HTTPException as error:
            return text(error.code or 400, error.name)
        return self._answers[path](request, self._site(), words)


def text(status: int, reason: str) -> Response:
    """Return a response with a line of text."""
    body = f"{reason}\n".encode("utf-8", "backslashreplace")
    return Response(body, status, content_type=TEXT)


def content_response(request: Request, body: Body, content_type: str) -> Response:
    """Return a response with this content, which is not copied for each client."""
    response = Response(wrap_file(request.environ, body.open()), content_type=content_type, direct_passthrough=True)
    response.content_length = body.size
    return response


def body_response(request: Request, body: Body, content_type: str) -> Response:
    """Return a body; 304 without it if the client has the same bytes."""
    response = Response(status=HTTPStatus.NOT_MODIFIED)
    if not request.if_none_match.contains_weak(body.etag):
        response = content_response(request, body, content_type)
    response.set_etag(body.etag)
    return response


def _metrics(request: Request, site: Site, words: Mapping[str, str]) -> Response:
    del words
    metrics = b""
    if site.metrics is not None:
        metrics = site.metrics.get()
    if not metrics:  # a scraper would count a page without metrics as success
        return text(503, _NO_CYCLE)
    return content_response(request, Body(metrics), _METRICS)


def _health(request: Request, site: Site, words: Mapping[str, str]) -> Response:
    del request, words
    reason = site.health()
    if reason:
        return text(503, reason)
    return text(200, "ok")


def _list(request: Request, site: Site, words: Mapping[str, str]) -> Response:
    """Answer with the target list of a job, as its file has it."""
    if site.cycle is None:
        return text(503, _NO_CYCLE)
    job = words["job"]
    found = site.cycle.jobs.get(job)
    if found is None:
        return text(404, _unknown_job(job, site.cycle))
    return _target_list(request, found)


def _every_list(request: Request, site: Site, words: Mapping[str, str]) -> Response:
    del words
    if site.cycle is None:
        return text(503, _NO_CYCLE)
    return _target_list(request, site.cycle.every.get())


def _target_list(request: Request, found: Body | Unserved) -> Response:
    if isinstance(found, Unserved):
        return text(503, found.reason)
    return body_response(request, found, JSON)


def _resolution(request: Request, site: Site, words: Mapping[str, str]) -> Response:
    del words
    if site.cycle is None:
        return text(503, _NO_CYCLE)
    return body_response(request, site.cycle.document.get(), JSON)


def _page(
    answer: Callable[[PageRequest, Site], Answer], request: Request, site: Site, words: Mapping[str, str]
) -> Response:
    """Answer with a page of the status, or with its JSON."""
    from clan_discovery.web.status import PageRequest  # noqa: PLC0415 - as above

    found = answer(PageRequest(request.path, request.args, words.get("name", request.args.get("name"))), site)
    return Response(found.body, found.status, content_type=found.content_type)


def _unknown_job(job: str, cycle: Cycle) -> str:
    jobs = sorted(cycle.jobs)
    listed = ", ".join(jobs[:_LISTED_MOST]) or "none"
    if more := and_more(len(jobs), _LISTED_MOST):
        listed += f", {more}"
    return f"there is no job {job[:100]!r}; the jobs are: {listed}"
