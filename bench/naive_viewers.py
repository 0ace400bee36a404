"""The obvious way, as a baseline: FastAPI, a list of sockets, `await send_text` in a loop.

`python -m bench.naive_viewers PORT [plain]` takes viewers on `/api/v1/stream` and an alarm on
`/alarm`. It runs with uvicorn's defaults, or `plain`: without compression, as the real API does.
"""

import sys

import uvicorn
import uvloop
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect

app = FastAPI()
_sockets: list[WebSocket] = []


@app.websocket("/api/v1/stream")
async def stream(socket: WebSocket) -> None:
    """Keep one viewer until it leaves."""
    await socket.accept()
    await socket.receive_text()
    await socket.send_text('{"type":"ready","cursor":0}')
    _sockets.append(socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        _sockets.remove(socket)


@app.post("/alarm")
async def alarm(request: Request) -> None:
    """Send each line of the body to everybody."""
    for text in (await request.body()).decode().splitlines():
        for socket in _sockets:
            await socket.send_text(text)


def main() -> None:
    """Serve until the process is ended."""
    config = uvicorn.Config(
        app,
        port=int(sys.argv[1]),
        ws="websockets-sansio",
        ws_per_message_deflate="plain" not in sys.argv,
        log_config=None,
        access_log=False,
    )
    uvloop.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()
