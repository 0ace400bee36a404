"""`anxin demo`: the platform with a demonstration facility, demo users and simulated devices."""

import argparse
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Self

import httpx
import msgspec

from anxin.config import Settings
from anxin.embedded import write_private
from anxin.errors import AnxinError
from anxin.keeper import Service
from anxin.stack import Stack, command, easy_password, ended_by_signals, local

RESIDENTS: Final = 36
"""24 in beds of the facility, 12 in home care beds."""
SCENARIOS: Final = ("sos", "fall", "apnea")
EVERY: Final = "5m"

FAMILY_SCOPES: Final = ("status", "vitals", "alarms", "events")
PHONE: Final = "023-4980 0000"
VISITS: Final = (("bath", -20, 40, "水温合适，心情好"), ("medical", 46, None, "社区医生复诊"))
"""Kind, hours from now, minutes, and what the family reads."""


class DemoFailed(AnxinError):
    """The demonstration could not be prepared."""


class Logins(msgspec.Struct, frozen=True):
    """The passwords of the demo users, kept so that later starts show the same."""

    admin: str
    supervisor: str
    nurse: str
    family: str


def run(args: argparse.Namespace, settings: Settings) -> int:  # noqa: ARG001 - every command's form
    """Run everything with simulated residents until somebody asks to stop."""
    directory = Path(settings.data_dir).absolute()
    kept = directory / "demo-logins.json"
    logins = read_logins(kept, settings.admin_password)
    # The screen belongs to the addresses and logins; warnings still show.
    stack = Stack(settings, logins.admin, {"ANXIN_LOG_LEVEL": "warning"})
    with ended_by_signals(at_once=stack.abort), stack:
        write_private(kept, msgspec.json.format(msgspec.json.encode(logins), indent=1).decode())
        provision(stack, logins)
        with Console(stack, logins) as console:
            console.ensure_users()
        stack.announce()
        stack.keep("simulate", simulator(stack))
        sys.stdout.write(welcome(stack, logins))
        sys.stdout.flush()
        stack.serve()
    return 0


def read_logins(file: Path, admin_password: str) -> Logins:
    """Return the logins of an earlier start, or new ones; a given password of `admin` wins."""
    try:
        logins = msgspec.json.decode(file.read_bytes(), type=Logins)
    except FileNotFoundError:
        logins = Logins(easy_password(), easy_password(), easy_password(), easy_password())
    except (OSError, msgspec.MsgspecError) as error:
        raise DemoFailed(f"{file} cannot be read ({error}). Restore it or delete it.") from error
    return msgspec.structs.replace(logins, admin=admin_password or logins.admin)


def provision(stack: Stack, logins: Logins) -> None:
    """Create the facility, its residents and their devices, unless they exist."""
    print("准备演示院区… preparing the demonstration", file=sys.stderr, flush=True)
    done = subprocess.run(  # noqa: S603 - our own command, no shell
        command(
            "simulate", f"--residents={RESIDENTS}", "--provision", "--history=24h", "--duration=1s"
        ),
        env=stack.environment("simulate") | {"ANXIN_ADMIN_PASSWORD": logins.admin},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode != 0:
        raise DemoFailed(
            "The demonstration could not be prepared; its last words are above. If the user admin "
            "has another password, set ANXIN_ADMIN_PASSWORD or choose another --data-dir."
        )


def simulator(stack: Stack) -> Service:
    """Return the simulated devices as a service."""
    arguments = (
        f"--devices={stack.directory / 'sim-devices.json'}",
        *(f"--scenario={name}" for name in SCENARIOS),
        *("--after=20s", f"--every={EVERY}"),
    )
    return Service(
        "simulate",
        command("simulate", *arguments),
        stack.environment("simulate"),
        output=stack.directory / "simulate.log",
    )


class Console:
    """The API as the administrator of the demonstration uses it."""

    def __init__(self, stack: Stack, logins: Logins) -> None:
        """Prepare; entering logs in."""
        self._logins = logins
        self._http = httpx.Client(
            base_url=f"http://{local(stack.http)}/api/v1", timeout=30, trust_env=False
        )

    def __enter__(self) -> Self:
        """Log in."""
        try:
            login = {"username": "admin", "password": self._logins.admin}
            token = self._ask("POST", "/auth/login", login)["access_token"]
        except BaseException:
            self._http.close()
            raise
        self._http.headers["Authorization"] = f"Bearer {token}"
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._http.close()

    def ensure_users(self) -> None:
        """Create the users that are missing: a supervisor, a nurse, a family."""
        there = {user["username"] for user in self._items("/users")}
        places = self._items("/places")
        town = next(place for place in places if place["kind"] == "town")
        facility = next(place for place in places if place["kind"] == "facility")
        for name, place in (("supervisor", town), ("nurse", facility)):
            if name not in there:
                self._create_user(name, place["id"])
        if "family" not in there:
            family = self._create_user("family", None)
            resident = self._items("/residents")[0]
            body = {"user_id": family["id"], "scopes": FAMILY_SCOPES}
            self._ask("POST", f"/residents/{resident['id']}/family", body)
            self._ask("PATCH", f"/places/{facility['id']}", {"phone": PHONE})
            self._note_visits(resident["id"])

    def _note_visits(self, resident_id: str) -> None:
        """Write down what was done for the resident of the family, and what is planned."""
        now = datetime.now(UTC)
        for kind, hours, minutes, note in VISITS:
            at = (now + timedelta(hours=hours)).isoformat(timespec="minutes")
            visit = {"kind": kind, "at": at, "minutes": minutes, "note": note}
            self._ask("POST", f"/residents/{resident_id}/visits", visit)

    def _create_user(self, name: str, place_id: str | None) -> dict[str, Any]:
        password = getattr(self._logins, name)
        user = {"username": name, "password": password, "role": name, "place_id": place_id}
        return self._ask("POST", "/users", user)

    def _items(self, path: str) -> list[dict[str, Any]]:
        return list(self._ask("GET", f"{path}?limit=100")["items"])

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, json=body)
            answer.raise_for_status()
        except httpx.HTTPStatusError as error:
            if error.response.status_code == HTTPStatus.UNAUTHORIZED:
                raise DemoFailed(
                    "The user admin has another password. Set ANXIN_ADMIN_PASSWORD to it, or "
                    "choose another --data-dir."
                ) from error
            raise DemoFailed(f"{method} {path}: {error.response.text[:300]}") from error
        except httpx.HTTPError as error:
            raise DemoFailed(f"{method} {path}: {error}") from error
        return dict(answer.json()) if answer.content else {}


def welcome(stack: Stack, logins: Logins) -> str:
    """Return what a person needs to begin."""
    url = f"http://{local(stack.http)}"
    roles = {
        "admin": "管理员  administrator",
        "supervisor": "主管    supervisor of the town",
        "nurse": "护士    nurse of the facility",
        "family": "家属    a resident's family",
    }
    lines = [
        "",
        "安心演示已就绪 · The Anxin demo is running",
        "",
        f"  页面   pages     {url}/  (护理站 station · 家人 family)",
        f"  接口   API       {url}/api/docs",
        f"  设备   MQTT      {local(stack.mqtt)}",
        "",
        "  用户 user     密码 password   角色 role",
        *(f"  {name:<13}{getattr(logins, name):<16}{role}" for name, role in roles.items()),
        "",
        f"  {RESIDENTS} 位模拟老人，每五分钟有求助、跌倒、呼吸暂停，按 Ctrl-C 结束",
        f"  {RESIDENTS} simulated people; an SOS, a fall, an apnea every 5 min; Ctrl-C ends it all",
        "",
        "",
    ]
    return "\n".join(lines)
