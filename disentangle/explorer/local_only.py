"""Refusal of requests that do not come from the server's own pages on this machine."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOCAL_NAMES = {"127.0.0.1", "::1", "localhost"}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class LocalOnly:
    """ASGI middleware that refuses foreign hosts, foreign origins and uploads.

    Any page in the user's browser can send requests to a server on this machine. By DNS rebinding,
    which points the page's own host name at this machine, it could read the answers as well.

    Args:
        app: ASGI application to protect.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with status 403 and the reason."""
        handled = scope["type"] in ("http", "websocket")
        reason = find_refusal(scope["headers"]) if handled else None
        if reason is None:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": f"{reason}\n".encode()})


def find_refusal(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the reason to refuse a request with these headers, or None.

    Examples:
        >>> find_refusal([(b"host", b"localhost:7860"), (b"origin", b"http://localhost:7860")])
        >>> find_refusal([(b"host", b"rebound.example:7860")])
        'the host must be this machine, got rebound.example:7860'
    """
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    host = ", ".join(values.get("host", ["none"]))
    if _read_name(host) not in LOCAL_NAMES:
        return f"the host must be this machine, got {host}"
    for origin in values.get("origin", []):
        if origin.lower() != f"http://{host}".lower():
            return f"the origin must be http://{host}, got {origin}"
    if any(value.lower().startswith("multipart/") for value in values.get("content-type", [])):
        return "uploads are refused"
    return None


def _read_name(host: str) -> str | None:
    """Return the name or address in a `Host` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
