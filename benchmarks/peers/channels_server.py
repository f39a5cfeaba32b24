"""Channels with channels_redis: a consumer a viewer, a group a project."""

import os

import django
import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path
from fragment import render

settings.configure(
    SECRET_KEY="benchmark",
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": f"channels_redis.{os.environ.get('LAYER', 'core.RedisChannelLayer')}",
            "CONFIG": {"hosts": [os.environ["REDIS_URL"]]},
        }
    },
)
django.setup()


class Live(AsyncWebsocketConsumer):
    """One viewer."""

    async def connect(self) -> None:
        """Join the project's group."""
        self.group = self.scope["url_route"]["kwargs"]["project"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        """Leave the group."""
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def progress(self, message: dict) -> None:
        """Show an event."""
        await self.send(text_data=render(message["event"]))


app = ProtocolTypeRouter({"websocket": URLRouter([path("live/<project>", Live.as_asgi())])})

if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(os.environ["PORT"]),
        log_level="warning",
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
    )
