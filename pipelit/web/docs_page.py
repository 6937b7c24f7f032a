"""Writes the OpenAPI document as one page for people: no script, nothing from elsewhere."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import msgspec

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1f24; background: #fff }
h2 { margin-top: 3rem; border-bottom: 1px solid #d0d7de }
details { border: 1px solid #d0d7de; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer } summary code { font-size: 1rem }
pre { background: #f6f8fa; padding: .8rem; overflow: auto; border-radius: 6px; font-size: .85rem }
table { border-collapse: collapse } td, th { text-align: left; padding: .2rem 1rem .2rem 0;
       vertical-align: top }
.method { display: inline-block; width: 4.5rem; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  body { color: #e6edf3; background: #0d1117 } pre { background: #161b22 }
  h2, details { border-color: #30363d } a { color: #4493f8 }
}
"""


def write_page(document: Mapping[str, Any]) -> str:
    """Return the page: sections in the order of the routes, each operation folded."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    sections: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            shown = "".join(_operation(method, path, operation))
            sections.setdefault(operation["tags"][0], []).append(shown)
    links = " · ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in sections)
    body = "".join(
        f'<h2 id="{escape(name)}">{escape(name)}</h2>{"".join(operations)}'
        for name, operations in sections.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p>{escape(info['description'])} "
        f'The same for programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"<p>{links}</p>{body}{_schemas(document)}</body></html>"
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<details><summary><code><span class="method">{method.upper()}</span>{escape(path)}'
    yield f"</code> – {escape(operation['summary'])}</summary>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    names = [name for scheme in operation["security"] for name in scheme]
    yield f"<p>Authentication: {escape(', '.join(names) or 'none')}</p>"
    if "parameters" in operation:
        yield "<table><tr><th>Parameter</th><th>In</th><th>Schema</th></tr>"
        for parameter in operation["parameters"]:
            yield f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{parameter['in']}</td>"
            yield f"<td><code>{_json(parameter['schema'])}</code></td></tr>"
        yield "</table>"
    if "requestBody" in operation:
        yield f"<p>Body</p>{_content(operation['requestBody'])}"
    for status, response in operation["responses"].items():
        lines = "<br>".join(escape(line) for line in response["description"].split("\n"))
        yield f"<p><strong>{status}</strong> {lines}</p>"
        if status.startswith("2"):
            yield _content(response)
    yield "</details>"


def _content(holder: Mapping[str, Any]) -> str:
    """Show a body's schema, named ones as links, and its examples."""
    content = holder.get("content", {}).get("application/json")
    if content is None:
        return ""
    reference = content["schema"].get("$ref")
    if reference is not None:
        name = escape(reference.rsplit("/", 1)[1])
        shown = f'<p><a href="#schema-{name}">{name}</a></p>'
    else:
        shown = f"<pre>{_json(content['schema'])}</pre>"
    examples = content.get("examples", {})
    return shown + "".join(
        f"<p>{escape(name)}</p><pre>{_json(example['value'])}</pre>"
        for name, example in examples.items()
    )


def _schemas(document: Mapping[str, Any]) -> str:
    shown = "".join(
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<pre>{_json(schema)}</pre></details>"
        for name, schema in document["components"]["schemas"].items()
    )
    return f"<h2>Schemas</h2>{shown}"


def _json(value: object) -> str:
    return escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
