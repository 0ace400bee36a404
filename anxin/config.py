"""Settings: read once from ANXIN_* variables, frozen, handed down as an argument.

A secret may also come from a file: ANXIN_DATABASE_FILE names a file that holds ANXIN_DATABASE.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from anxin.errors import SettingError


class Address(msgspec.Struct, frozen=True):
    """A host and port to listen on or to connect to."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `host:port`, `[v6]:port` or `:port`; raise SettingError on anything else."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise SettingError(f"{text!r} is not host:port, for example 127.0.0.1:1883.")
        return cls(host.strip("[]") or "0.0.0.0", int(port))

    def __str__(self) -> str:
        """Write it the way `parse` reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an operator can set; `docs/operations.md` explains each."""

    database: str = ""
    """DSN of an external Postgres; empty means the embedded one under `data_dir`."""
    database_door: str = ""
    """DSN of the API for what comes before a session is known; empty means `database`."""
    broker: str = ""
    """Broker of `anxin bridge`: mqtt://user:password@host:1883."""
    data_dir: str = "data"
    http: str = "127.0.0.1:8080"
    mqtt: str = "127.0.0.1:1883"
    mqtts: str = ""
    """TLS listener, for example 0.0.0.0:8883; needs `tls_cert` and `tls_key`."""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    """Certificates of who may issue those of devices; empty: devices are let in by secret only."""
    tls_client_crl: str = ""
    """Lists of certificates of devices that their issuer has taken back, PEM or DER."""
    tls_client_required: bool = False
    """Refuse devices without a certificate, also those with a secret."""
    public_mqtt: str = ""
    """Where devices reach the platform, as they are told when they enrol: mqtts://iot.example.cn."""
    postgres_port: int = 0
    """Port of the embedded Postgres on loopback; 0 picks a free one and keeps it."""
    ingest_metrics: str = ""
    """host:port for the Prometheus metrics of ingest; empty switches them off."""
    worker_metrics: str = ""
    log_level: str = "info"
    admin_password: str = ""
    """First password of `admin`; empty means generated and printed once."""
    timezone: str = "Asia/Shanghai"
    """Where nights begin and end, for the rules that ask."""
    device_rate: int = 20_000
    """Messages a second that one device may send for long; 0 means no limit."""
    device_burst: int = 40_000
    address_rate: int = 0
    """Messages a second that all devices behind one address may send for long; 0 means no limit."""
    connect_rate: int = 500
    """New connections a second from one address for long; 0 means no limit."""
    connect_burst: int = 20_000
    ingest_share_port: bool = False
    """Let several ingest processes on one machine listen on the same port."""
    queue_mebibytes: int = 64
    """Payload memory that ingest holds before it stops reading from devices."""
    spool_mebibytes: int = 1024
    """Disk that ingest may fill while the database is away; 0 means that it does not."""
    spool_dir: str = ""
    """Where, on a disk that survives a restart; empty means `spool` under `data_dir`."""
    remember_hours: int = 24
    """So long ingest lets known devices in by its copy of their keys when the database is away."""
    session_hours: int = 12
    session_idle_minutes: int = 120
    """A login that nobody uses ends sooner; an open alarm stream uses it."""
    require_totp: str = ""
    """Roles that need a second factor, separated by commas: admin,supervisor."""
    cookie_secure: bool = False
    """Set when the pages are served over HTTPS, as they should be outside one machine."""
    trusted_proxies: str = ""
    """Addresses whose X-Forwarded-For is believed, separated by commas."""
    retention_days: int = 730
    artefacts: str = ""
    """Where learned models are kept; empty means those that come with the program."""
    quarantine_days: int = 30
    rollup_days: int = 1826
    """How long means by the hour are kept; those by the minute go with the readings."""
    events_days: int = 1096
    alarms_days: int = 1096
    """Closed alarms with their timeline, deliveries and receipts."""
    deliveries_days: int = 366
    risk_days: int = 366
    """How long former scores of residents are kept."""
    data_keys: str = ""
    """What seals ID-card and telephone numbers, as `anxin keys new` writes it; empty means
    `data.keys` under `data_dir`."""
    audit_days: int = 1095
    """How long it is kept who did and saw what; never less than 180."""
    audit_key: str = ""
    """What seals the audit: 32 bytes in base64url; empty means made and kept under `data_dir`."""
    public_url: str = ""
    """Where people reach the pages, for links in notices and sign-in: https://care.example.cn."""
    oidc: str = ""
    """Providers of identities, a JSON list: see `docs/single-sign-on.md`."""
    cors_origins: str = ""
    """Origins whose pages may use the API with a bearer token, separated by commas."""
    notice_full_names: bool = False
    """Whole names in notices instead of initials: they leave the house."""
    allow_private_webhooks: bool = False
    """Let webhooks, robots and the voice gateway be plain http or in the own network."""
    receipt_token: str = ""
    """Secret part of the address to which SMS providers report deliveries; empty: they do not."""
    wechat_app_id: str = ""
    wechat_secret: str = ""
    wechat_template: str = ""
    wechat_fields: str = "thing1=what,thing2=place,thing3=who,time4=time"
    aliyun_key_id: str = ""
    aliyun_key_secret: str = ""
    aliyun_sign: str = ""
    aliyun_template: str = ""
    tencent_secret_id: str = ""
    tencent_secret_key: str = ""
    tencent_sms_app_id: str = ""
    tencent_sign: str = ""
    tencent_template: str = ""
    voice_url: str = ""
    voice_secret: str = ""
    vapid_private_key: str = ""
    """P-256 key that signs Web Push: PEM, or 32 bytes in base64url."""
    vapid_subject: str = ""
    """Whom push services tell of trouble: mailto:… or https://…."""
    smtp: str = ""
    """host:port of a mail server with STARTTLS, or port 465."""
    smtp_user: str = ""
    smtp_password: str = ""
    smtp_from: str = ""


SECRETS = (
    "database", "database_door", "broker", "data_keys", "admin_password", "audit_key", "oidc",
    "receipt_token", "wechat_secret", "aliyun_key_secret", "tencent_secret_key",
    "voice_secret", "vapid_private_key", "smtp_password",
)  # fmt: skip


def read_settings(environ: Mapping[str, str] = os.environ, **overrides: object) -> Settings:
    """Return the settings of this process; raise SettingError naming the variable at fault.

    Options given on the command line (`overrides`, None = not given) win over variables.
    """
    values: dict[str, object] = {}
    for field in Settings.__struct_fields__:
        name = f"ANXIN_{field.upper()}"
        if field in SECRETS and (path := environ.get(f"{name}_FILE")):
            try:
                values[field] = Path(path).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise SettingError(f"{name}_FILE: {path} cannot be read: {error}.") from error
        elif (text := environ.get(name)) is not None:
            values[field] = text
    values |= {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingError(f"A setting ANXIN_* cannot be read: {error}.") from error
    for text in (settings.http, settings.mqtt, settings.mqtts):
        if text:
            Address.parse(text)
    return settings
