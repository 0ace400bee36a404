"""The page `/api/docs`: every route in plain HTML, made from the OpenAPI document, no scripts."""

from html import escape
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)


def add_reference(app: FastAPI) -> None:
    """Serve the reference of this application."""
    app.include_router(router)


@router.get("/api/docs")
async def reference(request: Request) -> HTMLResponse:
    """Return the reference as one page."""
    return HTMLResponse(page(request.app.openapi()))


def page(document: dict[str, Any]) -> str:
    """Return the HTML page of an OpenAPI document."""
    operations = [
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} API</title>'
        '<meta name="viewport" content="width=device-width"></head><body>'
        f"<h1>{title} API</h1><p>{escape(document['info']['description'])} "
        '<a href="/api/v1/openapi.json">OpenAPI document</a></p>'
        f"<h2>Routes</h2>{''.join(operations)}<h2>Shapes</h2>{''.join(schemas)}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    answers = [
        f"<li>{escape(status)} {_type(_content(answer).get('schema', {}))}</li>"
        for status, answer in operation.get("responses", {}).items()
        if status.startswith("2")
    ]
    rows = "".join(_parameter(one) for one in operation.get("parameters", ()))
    return (
        f"<section><h3><code>{method.upper()} {escape(path)}</code></h3>"
        f"<p>{escape(operation.get('description', ''))}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + (f"<p>Body: {_type(body['schema'])}</p>" if body else "")
        + f"<ul>{''.join(answers)}</ul></section>"
    )


def _parameter(one: dict[str, Any]) -> str:
    needed = "needed" if one.get("required") else "optional"
    return (
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}, {needed}</td>"
        f"<td>{_type(one['schema'])}</td><td>{escape(one.get('description', ''))}</td></tr>"
    )


def _schema(name: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' *' if field in needed else ''}</td>"
        f"<td>{_type(shape)}</td></tr>"
        for field, shape in schema.get("properties", {}).items()
    )
    about = escape(schema.get("description", ""))
    return (
        f'<section id="{escape(name)}"><h3>{escape(name)}</h3><p>{about}</p>'
        f"<table>{rows}</table></section>"
    )


def _content(answer: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = answer.get("content", {}).get("application/json", {})
    return content


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = escape(str(schema.get("type", "any")))
    form = schema.get("format") or schema.get("pattern")
    return f"{kind} ({escape(form)})" if form else kind
