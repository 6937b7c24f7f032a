"""The OpenAPI document and its page follow from the declarations of every route."""

import importlib
import json
import pkgutil
import re

import pytest

import pipelit.web.routes
from pipelit.web.openapi import build_document
from pipelit.web.routes import system
from pipelit.web.routing import Auth


def load_api_routes():
    """Collect what every section declares."""
    found = []
    for module in pkgutil.iter_modules(pipelit.web.routes.__path__):
        declared = importlib.import_module(f"pipelit.web.routes.{module.name}")
        if module.name != "system":
            found += getattr(declared, "ROUTES", ())
    return found


API = load_api_routes()
DOCUMENT = build_document(API, system.ROUTES, version="1.2.3")


def find_operation(route, prefix):
    path = prefix + re.sub(r":(int|path)\}", "}", route.path)
    return DOCUMENT["paths"][path][route.method.lower()]


def walk(value):
    yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from walk(item)


EVERY_ROUTE = [
    pytest.param(route, prefix, id=f"{route.method} {route.path}")
    for routes, prefix in ((API, "/api/v1"), (system.ROUTES, ""))
    for route in routes
]


@pytest.mark.parametrize(("route", "prefix"), EVERY_ROUTE)
def test_every_route_is_documented_with_each_of_its_refusals(route, prefix):
    """Status and exact text, and its success."""
    operation = find_operation(route, prefix)
    assert operation["summary"].endswith(".")
    assert str(route.status) in operation["responses"]
    for refusal in route.refuses:
        assert refusal.detail in operation["responses"][str(refusal.status)]["description"]
    if route.auth in {Auth.BEARER, Auth.ADMIN}:
        assert "Invalid or missing API key." in operation["responses"]["401"]["description"]
        assert operation["security"] == [{"bearer": []}]


@pytest.mark.parametrize(("route", "prefix"), EVERY_ROUTE)
def test_every_path_parameter_is_documented(route, prefix):
    """As the template names it."""
    parameters = find_operation(route, prefix).get("parameters", [])
    names = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
    assert names == set(route.parameters)


@pytest.mark.parametrize(("route", "prefix"), EVERY_ROUTE)
def test_what_a_route_answers_is_described(route, prefix):
    """A 200 or 201 without a shape helps nobody; pages and streams are the exception."""
    if prefix and route.status in {200, 201}:
        assert route.response is not None


def test_a_webhook_takes_its_key_in_the_header_or_the_query():
    """Two schemes of which one is enough."""
    operation = DOCUMENT["paths"]["/api/v1/webhooks/{slug}"]["post"]
    schemes = DOCUMENT["components"]["securitySchemes"]

    found = [schemes[name] for choice in operation["security"] for name in choice]

    assert [(scheme["type"], scheme.get("in")) for scheme in found] == [
        ("http", None),
        ("apiKey", "query"),
    ]
    assert found[1]["name"] == "api_key"


def test_every_reference_leads_somewhere():
    """No schema is named that is not there."""
    references = {
        node["$ref"] for node in walk(DOCUMENT) if isinstance(node, dict) and "$ref" in node
    }
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references <= known


def test_operation_ids_are_unique():
    """Client generators make function names of them."""
    ids = [op["operationId"] for path in DOCUMENT["paths"].values() for op in path.values()]
    assert len(ids) == len(set(ids))


def test_the_document_says_what_it_is():
    """OpenAPI 3.1, in plain JSON."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == "1.2.3"
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT


def test_limits_are_written_as_json_schema_has_them():
    """`minimum`, never pydantic's own words."""
    assert not [
        n for n in walk(DOCUMENT) if isinstance(n, dict) and {"ge", "le", "gt", "lt"} & n.keys()
    ]


def test_the_page_needs_nothing_from_elsewhere():
    """No script, no font, no style of another host."""
    page = system.describe(API, system.ROUTES, version="1.2.3").page.decode()
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert "/api/v1/workflows/" in page
    assert "Invalid or missing API key." in page
