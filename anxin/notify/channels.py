"""Every channel by its name, made from the settings."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from anxin.config import Settings
from anxin.notify.aliyun_sms import AliyunSms
from anxin.notify.channel import Channel
from anxin.notify.dingtalk import Dingtalk
from anxin.notify.feishu import Feishu
from anxin.notify.mail import Mail
from anxin.notify.station import Station
from anxin.notify.tencent_sms import TencentSms
from anxin.notify.voice import Voice
from anxin.notify.web import Web
from anxin.notify.web_push import WebPush
from anxin.notify.webhook import Webhook
from anxin.notify.wechat import Wechat
from anxin.notify.wecom import Wecom


@asynccontextmanager
async def open_channels(settings: Settings) -> AsyncIterator[Mapping[str, Channel]]:
    """Lend every channel; which of them can be used, `fault` of each tells."""
    async with Web(allow_private=settings.allow_private_webhooks) as web:
        reports = bool(settings.receipt_token)
        channels: tuple[Channel, ...] = (
            Station(),
            Wecom(web),
            Dingtalk(web),
            Feishu(web),
            Wechat(
                web,
                app_id=settings.wechat_app_id,
                secret=settings.wechat_secret,
                template=settings.wechat_template,
                fields=settings.wechat_fields,
            ),
            AliyunSms(
                web,
                key_id=settings.aliyun_key_id,
                key_secret=settings.aliyun_key_secret,
                sign_name=settings.aliyun_sign,
                template=settings.aliyun_template,
                reports=reports,
            ),
            TencentSms(
                web,
                secret_id=settings.tencent_secret_id,
                secret_key=settings.tencent_secret_key,
                app_id=settings.tencent_sms_app_id,
                sign_name=settings.tencent_sign,
                template=settings.tencent_template,
                reports=reports,
            ),
            Voice(web, url=settings.voice_url, secret=settings.voice_secret),
            Webhook(web),
            WebPush(web, private_key=settings.vapid_private_key, subject=settings.vapid_subject),
            Mail(
                server=settings.smtp,
                user=settings.smtp_user,
                password=settings.smtp_password,
                sender=settings.smtp_from,
            ),
        )
        yield {channel.name: channel for channel in channels}
