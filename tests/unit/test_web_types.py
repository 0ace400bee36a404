"""The types that the pages share with the API."""

from tests.web_types import FILE, described, typescript


def test_types_of_the_pages_are_those_of_the_api() -> None:
    assert FILE.read_text("utf-8") == described(), "Run: python -m tests.web_types"


def test_schema_becomes_the_type_that_says_the_same() -> None:
    description = {
        "components": {
            "schemas": {
                "Page[Bed]": {
                    "type": "object",
                    "properties": {
                        "items": {"type": "array", "items": {"$ref": "#/components/schemas/Bed"}},
                        "next": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    },
                    "required": ["items"],
                },
                "Bed": {"type": "string", "enum": ["made", "it's"]},
            }
        },
        "paths": {
            "/api/v1/beds": {
                "get": {
                    "responses": {
                        "200": {
                            "content": {
                                "application/json": {
                                    "schema": {"$ref": "#/components/schemas/Page[Bed]"}
                                }
                            }
                        }
                    }
                },
                "delete": {"responses": {"204": {}}},
            }
        },
    }
    written = typescript(description)
    assert "export type Bed = 'made' | 'it\\'s'\n" in written
    assert "export interface Page_Bed {\n  items: Bed[]\n  next?: string | null\n}\n" in written
    assert "  'GET /beds': Page_Bed\n  'DELETE /beds': undefined\n" in written
