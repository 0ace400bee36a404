"""The types of the API as the pages know them: `python -m tests.web_types` writes them anew.

They are made from the OpenAPI description, which needs no server; a test compares the file with
what would be written.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from anxin.config import Settings
from api.app import BASE, create_app

FILE: Final = Path(__file__).parent.parent / "web/src/openapi.ts"
_HEAD: Final = """\
/** The API's own types, written by `python -m tests.web_types`: change nothing here. */

"""
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_PLAIN: Final = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean",
                 "null": "null"}  # fmt: skip
_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")


def typescript(description: dict[str, Any]) -> str:
    """Return the schemas of an OpenAPI description as interfaces, and what each route answers."""
    schemas = description["components"]["schemas"]
    parts = [_declaration(name, schemas[name]) for name in sorted(schemas)]
    return _HEAD + "\n".join(parts) + "\n" + _answers(description["paths"])


def described() -> str:
    """Return what the file holds for the API of this program."""
    return typescript(create_app(Settings()).openapi())


def _declaration(name: str, schema: dict[str, Any]) -> str:
    name = _identifier(name)
    if schema.get("type") != "object" or "properties" not in schema:
        return f"export type {name} = {_type(schema)}\n"
    return f"export interface {name} {_members(schema)}\n"


def _members(schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    lines = []
    for field, value in schema["properties"].items():
        name = field if _NAME.fullmatch(field) else json.dumps(field)
        lines.append(f"  {name}{'' if field in needed else '?'}: {_type(value)}")
    return "\n".join(["{", *lines, "}"])


def _answers(paths: dict[str, Any]) -> str:
    """Return one interface: from method and path to the type of the answer."""
    lines = []
    for path in sorted(paths):
        for method in _METHODS:
            if method not in paths[path]:
                continue
            found = [
                _type(body["schema"])
                for status, response in sorted(paths[path][method]["responses"].items())
                if status.startswith("2")
                for kind, body in response.get("content", {}).items()
                if kind == "application/json"
            ]
            answer = found[0] if found else "undefined"
            lines.append(f"  '{method.upper()} {path.removeprefix(BASE)}': {answer}")
    return "\n".join(["export interface Answers {", *lines, "}\n"])


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _identifier(schema["$ref"].rsplit("/", 1)[1])
    if "const" in schema:
        return _literal(schema["const"])
    if "enum" in schema:
        return " | ".join(map(_literal, schema["enum"]))
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " | ".join(dict.fromkeys(_type(one) for one in schema[several]))
    match schema.get("type"):
        case "array" if "prefixItems" in schema:
            return f"[{', '.join(_type(one) for one in schema['prefixItems'])}]"
        case "array":
            inner = _type(schema.get("items", {}))
            return f"({inner})[]" if " | " in inner else f"{inner}[]"
        case "object":
            other = schema.get("additionalProperties", {})
            return f"Record<string, {_type(other) if isinstance(other, dict) else 'unknown'}>"
        case str(kind):
            return _PLAIN[kind]
    return "unknown"


def _literal(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return "'" + text[1:-1].replace("'", "\\'") + "'" if isinstance(value, str) else text


def _identifier(name: str) -> str:
    return re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9_]", "_", name)).strip("_")


if __name__ == "__main__":
    FILE.write_text(described(), "utf-8")
    sys.stdout.write(f"{FILE}\n")
