"""Write a board as Grafana's classic JSON, schemaVersion 39. Pure."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Final

from tools.boards.model import Column, laid_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clan_discovery.model import Json
    from tools.boards.model import Board, Link, Look, Panel, Place, Query, Store, Variable

SCHEMA: Final = 39
TAG: Final = "clan"
PLUGINS: Final[Mapping[Store, str]] = {
    "prometheus": "prometheus",
    "victorialogs": "victoriametrics-logs-datasource",
    "loki": "loki",
}
"""The type of each store's datasource."""
VARIABLES: Final[Mapping[Store, str]] = {"prometheus": "datasource", "victorialogs": "logs", "loki": "loki"}
"""The variable that names the datasource."""
_QUERY_RESULT: Final = 3
"""The kind of variable query that evaluates an expression."""


def document(board: Board) -> dict[str, Json]:
    """Return the JSON of a board."""
    panels: list[Json] = []
    number = 0
    for row, place, members in laid_out(board):
        number += 1
        written = [_panel(panel, at, number + n) for n, (panel, at) in enumerate(members, start=1)]
        head: dict[str, Json] = {"id": number, "type": "row", "title": row.title, "gridPos": _grid(place)}
        number += len(written)
        if row.is_open:
            panels += [{**head, "collapsed": False, "panels": []}, *written]
        else:
            panels.append({**head, "collapsed": True, "panels": written})
    return {
        "annotations": {"list": []},
        "description": board.about,
        "editable": True,
        "graphTooltip": 1,
        "links": [_boards_link(), *map(_board_link, board.links)],
        "panels": panels,
        "refresh": "1m",
        "schemaVersion": SCHEMA,
        "tags": [TAG],
        "templating": {"list": [_variable(one) for one in board.variables]},
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": board.title,
        "uid": board.uid,
    }


def _grid(place: Place) -> Json:
    return {"x": place.x, "y": place.y, "w": place.width, "h": place.height}


def _datasource(store: Store) -> Json:
    return {"type": PLUGINS[store], "uid": f"${{{VARIABLES[store]}}}"}


def _panel(panel: Panel, place: Place, number: int) -> Json:
    defaults: dict[str, Json] = {"noValue": panel.empty, **_look(panel.look)}
    overrides: list[Json] = []
    options: dict[str, Json] = {}
    more: dict[str, Json] = {}
    match panel.kind:
        case "timeseries":
            defaults["custom"] = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False}
            options = {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
            overrides = [_limit_line(query) for query in panel.queries if query.is_limit]
        case "stat":
            options = {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
        case "table":
            options = {"showHeader": True, "cellHeight": "sm"}
            overrides = [_override(column) for column in panel.columns]
            more = {"transformations": _columns(panel)}
        case "logs":
            options = {"showTime": True, "sortOrder": "Descending", "wrapLogMessage": True}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _datasource(panel.store),
        "gridPos": _grid(place),
        "targets": [_target(panel, query, n) for n, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": options,
        "links": [_link(link) for link in panel.links],
        **more,
    }


def _target(panel: Panel, query: Query, number: int) -> Json:
    common: dict[str, Json] = {
        "refId": string.ascii_uppercase[number],
        "datasource": _datasource(panel.store),
        "expr": query.text,
        "legendFormat": query.name,
    }
    is_range = panel.kind in ("timeseries", "logs")
    if panel.store == "victorialogs":
        return {**common, "queryType": "instant" if panel.kind == "logs" else "statsRange"}
    if panel.store == "loki":
        return {**common, "queryType": "range"}
    format_ = "table" if panel.kind == "table" else "time_series"
    return {**common, "range": is_range, "instant": not is_range, "format": format_}


def _look(look: Look) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if look.unit:
        found["unit"] = look.unit
    bounds = {"min": look.lowest, "max": look.highest, "decimals": look.decimals}
    found |= {key: value for key, value in bounds.items() if value is not None}
    if look.steps:
        found["color"] = {"mode": "thresholds"}
    base: Json = {"color": look.base, "value": None}
    steps: list[Json] = [{"color": step.color, "value": step.value} for step in look.steps]
    found["thresholds"] = {"mode": "absolute", "steps": [base, *steps]}
    words: dict[str, Json] = {
        str(word.value): {"text": word.text, "color": word.color, "index": n} for n, word in enumerate(look.words)
    }
    found["mappings"] = [{"type": "value", "options": words}] if words else []
    return found


def _limit_line(query: Query) -> Json:
    """Draw the limit of the alert as a dashed red line."""
    return {
        "matcher": {"id": "byName", "options": query.name},
        "properties": [
            {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
            {"id": "custom.fillOpacity", "value": 0},
        ],
    }


def _field(panel: Panel, column: Column) -> str:
    """Return the name that Grafana gives to a column."""
    if isinstance(column.field, str):
        return column.field
    if len(panel.queries) == 1:
        return "Value"
    return f"Value #{string.ascii_uppercase[column.field]}"


def _override(column: Column) -> Json:
    """Show a column as it says. It is matched by its new name, because the columns are renamed before."""
    properties: list[Json] = []
    if column.look is not None:
        look = _look(column.look)
        properties += [{"id": key, "value": value} for key, value in sorted(look.items()) if key != "color"]
        properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
    if column.links:
        properties.append({"id": "links", "value": [_link(link) for link in column.links]})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _columns(panel: Panel) -> Json:
    """Join the queries by their labels, then rename and order the columns. Others are hidden."""
    fields = [_field(panel, column) for column in panel.columns]
    return [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": fields}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {field: n for n, field in enumerate(fields)},
                "renameByName": {f: column.title for f, column in zip(fields, panel.columns, strict=True)},
            },
        },
    ]


def _variable(one: Variable) -> Json:
    head: dict[str, Json] = {"name": one.name, "label": one.title, "type": one.kind, "hide": 0}
    match one.kind:
        case "datasource":
            return {**head, "query": one.text, "regex": "", "multi": False, "includeAll": False, "refresh": 1}
        case "constant":
            return {**head, "hide": 2, "skipUrlSync": True, **_fixed(one.text)}
        case "textbox":
            return {**head, **_fixed(one.text)}
        case "query":
            everything: dict[str, Json] = {"includeAll": one.several, "multi": one.several}
            if one.several:
                everything |= {"allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}}
            return {
                **head,
                **everything,
                "datasource": _datasource("prometheus"),
                "query": {"qryType": _QUERY_RESULT, "query": one.text, "refId": one.name},
                "regex": f'/{one.name}="([^"]+)"/',
                "refresh": 2,
                "sort": 1,
            }


def _fixed(text: str) -> dict[str, Json]:
    return {"query": text, "current": {"text": text, "value": text}, "options": [{"text": text, "value": text}]}


def _link(link: Link) -> Json:
    return {"title": link.title, "url": link.url, "targetBlank": False}


def _board_link(link: Link) -> Json:
    return {**_plain_link(link.title), "type": "link", "url": link.url}


def _boards_link() -> Json:
    """Lead to all boards, for the same time and machine."""
    return {**_plain_link("Boards"), "type": "dashboards", "tags": [TAG], "asDropdown": True, "includeVars": True}


def _plain_link(title: str) -> dict[str, Json]:
    return {
        "title": title,
        "icon": "external link",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
        "url": "",
    }


def lines(board: Board) -> Sequence[str]:
    """Return the layout of a board as text, for a person who checks it."""
    found = [f"{board.uid}: {board.title}"]
    for row, _, members in laid_out(board):
        found.append(f"-- {row.title}" if row.is_open else f"-- {row.title} (closed)")
        texts = [f"{p.title} [{p.kind}, {at.width}x{at.height} at {at.x},{at.y}]" for p, at in members]
        found.append("   " + " | ".join(texts))
    return found
