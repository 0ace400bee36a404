"""E-mail by SMTP: TLS always, by STARTTLS (RFC 3207), or from the start on port 465 (RFC 8314)."""

import asyncio
import hashlib
import re
import smtplib
import ssl
from email.message import EmailMessage
from typing import Final

from anxin.config import Address
from anxin.notify.channel import Contact, DeliveryError, Receipt, Sent
from anxin.notify.notice import Notice

SECONDS: Final = 8.0
_TLS_FROM_THE_START: Final = 465
_MAILBOX: Final = re.compile(r"[^\s@<>\"]{1,64}@[^\s@<>\"]{1,190}")


class Mail:
    """Mail through one server."""

    name: Final = "email"
    receipts: Final[frozenset[Receipt]] = frozenset({"sent"})
    most_per_minute: Final = None

    def __init__(
        self, *, server: str, user: str, password: str, sender: str,
        trust: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        """`server` is host:port; `trust` decides which certificates are believed."""
        self._server = server
        self._user = user
        self._password = password
        self._sender = sender
        self._trust = trust

    def fault(self, contact: Contact) -> str | None:
        """Say what is missing."""
        if not self._server or not _MAILBOX.fullmatch(self._sender):
            return "Set ANXIN_SMTP and ANXIN_SMTP_FROM. 尚未配置邮件服务器。"
        if not _MAILBOX.fullmatch(contact.address):
            return "This is not a mail address. 邮箱格式不对。"
        return None

    async def send(self, notice: Notice, contact: Contact, *, key: str) -> Sent:
        """Hand one message to the server; its Message-ID follows from the key."""
        message = EmailMessage()
        message["Subject"] = notice.title()
        message["From"] = self._sender
        message["To"] = contact.address
        domain = self._sender.rpartition("@")[2]
        message_id = f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{domain}>"
        message["Message-ID"] = message_id
        message["Auto-Submitted"] = "auto-generated"
        if notice.priority == "high":
            message["Importance"] = "high"
        message.set_content(notice.text())
        try:
            await asyncio.to_thread(self._hand_over, message)
        except smtplib.SMTPRecipientsRefused as error:
            code = next(iter(error.recipients.values()))[0]
            raise _refused(code) from error
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code) from error
        except smtplib.SMTPNotSupportedError as error:
            raise DeliveryError(
                "The mail server offers no TLS, or no login.", permanent=True
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise DeliveryError(
                "The mail server's certificate is not valid.", permanent=True
            ) from error
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryError(
                f"The mail server cannot be reached ({type(error).__name__}).", permanent=False
            ) from error
        return Sent(message_id)

    def _hand_over(self, message: EmailMessage) -> None:
        where = Address.parse(self._server)
        trust = self._trust or ssl.create_default_context()
        if where.port == _TLS_FROM_THE_START:
            connection: smtplib.SMTP = smtplib.SMTP_SSL(
                where.host, where.port, timeout=SECONDS, context=trust
            )
        else:
            connection = smtplib.SMTP(where.host, where.port, timeout=SECONDS)
        with connection:
            if where.port != _TLS_FROM_THE_START:
                connection.starttls(context=trust)
            if self._user:
                connection.login(self._user, self._password)
            connection.send_message(message)


def _refused(code: int) -> DeliveryError:
    return DeliveryError(f"The mail server refused it ({code}).", permanent=not 400 <= code < 500)
