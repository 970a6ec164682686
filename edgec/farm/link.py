"""Who may talk to whom: addresses, certificates, and calls to the scheduler.

Off the loopback interface nothing starts and nothing connects without mutual TLS: whoever can talk
to a Dask scheduler can run code on each of its devices.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgec.errors import EdgecError, InputError, InternalError, ToolchainError

if TYPE_CHECKING:
    from distributed.security import Security

PORT = 8786
HERE = f"tcp://127.0.0.1:{PORT}"
SECONDS = 10.0
PATIENCE = 60.0  # seconds for one answer
AUTHORITY, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"
_HINT = "edgec farm certs makes one for each device; give its folder with --certs"


@dataclass(frozen=True)
class Address:
    """Where a scheduler listens, and the folder of the certificate that proves who one is."""

    url: str
    certs: Path | None = None

    @property
    def host(self) -> str:
        """The name or the number of the machine."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The TCP port."""
        return urlsplit(self.url).port or PORT

    def security(self) -> Security | None:
        """Dask's own settings for mutual TLS; None on the loopback interface without."""
        from distributed.security import Security

        if self.certs is None:
            return None
        authority, certificate, key = (str(path) for path in self._files())
        roles = {
            f"tls_{role}_{what}": path
            for role in ("scheduler", "worker", "client")
            for what, path in (("cert", certificate), ("key", key))
        }
        return Security(require_encryption=True, tls_ca_file=authority, **roles)

    def context(self) -> ssl.SSLContext | None:
        """The same for a plain socket."""
        if self.certs is None:
            return None
        authority, certificate, key = self._files()
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authority)
            context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise InputError(f"{self.certs}: no usable certificate: {error}", hint=_HINT) from error
        context.check_hostname = False  # devices have changing addresses; the authority is ours
        return context

    def _files(self) -> list[Path]:
        assert self.certs is not None
        paths = [self.certs / name for name in (AUTHORITY, CERTIFICATE, KEY)]
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path} does not exist", hint=_HINT)
        return paths


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and nothing else can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address(url: str, certs: Path | None) -> Address:
    """A checked address. InputError: not `tcp://` or `tls://`, or not fenced."""
    parts = urlsplit(url)
    try:
        sound = parts.scheme in ("tcp", "tls") and parts.hostname and (parts.port or True)
    except ValueError:
        sound = False
    if not sound:
        raise InputError(f"{url!r} is no address of a farm", hint=f"write tls://HOST:{PORT}")
    host = str(parts.hostname)
    if parts.scheme == "tcp" and not is_loopback(host):
        raise InputError(
            f"{url}: without mutual TLS a farm is for the loopback interface alone, because who "
            "can talk to it can run code on its devices",
            hint=f"write tls:// and give --certs; {_HINT}",
        )
    if parts.scheme == "tls" and certs is None:
        raise InputError(f"{url} wants a certificate", hint=_HINT)
    shown = f"[{host}]" if ":" in host else host
    return Address(
        f"{parts.scheme}://{shown}:{parts.port or PORT}", certs if parts.scheme == "tls" else None
    )


def knock(to: Address, seconds: float = SECONDS) -> None:
    """Connect once, for the message: Dask tries again for half a minute and says less.

    ToolchainError: nobody listens. InputError: one side refuses the other's certificate, or waits
    for TLS and hears none.
    """
    context = to.context()
    try:
        with socket.create_connection((to.host, to.port), timeout=seconds) as plain:
            if context is None:
                _greeted(plain, to)
                return
            with context.wrap_socket(plain) as secure:
                _greeted(secure, to)
    except ssl.SSLCertVerificationError as error:
        raise InputError(
            f"{to.url}: its certificate is not of the authority in {to.certs}: "
            f"{error.verify_message}",
            hint="use the certificate of that farm, or look who listens there",
        ) from error
    except ssl.SSLError as error:
        raise InputError(
            f"{to.url} refuses the certificate in {to.certs}: {error.reason or error}",
            hint=f"it is of another authority, or out of date; {_HINT}",
        ) from error
    except OSError as error:
        raise ToolchainError(
            f"nobody listens at {to.url}: {error}",
            hint="start one with edgec farm up, or give the right --farm",
        ) from error


def _greeted(line: socket.socket, to: Address) -> None:
    """Dask's listener speaks first; with TLS 1.3 a refusal also comes only now."""
    try:
        if line.recv(1):
            return
    except TimeoutError:
        pass
    raise InputError(
        f"{to.url} listens and does not greet",
        hint="it may want mutual TLS: write tls:// and give --certs; or it is frozen",
    )


ERRORS = {kind.__name__: kind for kind in EdgecError.__subclasses__() if kind is not EdgecError}


def failure(error: EdgecError) -> dict[str, Any]:
    """An error for the wire."""
    kind = type(error).__name__
    return {"error": kind, "message": error.message, "hint": error.hint}


def answer(found: Mapping[str, Any]) -> Any:
    """What the other side answered, or the EdgecError that it raised."""
    if "ok" in found:
        return found["ok"]
    if found.get("error") in ("InputError", "UnsupportedError", "ToolchainError", "EmitError"):
        raise ERRORS[found["error"]](str(found["message"]), hint=str(found["hint"]))
    raise InternalError(f"the farm answered {json.dumps(dict(found), default=str)[:500]}")


async def ask(scheduler: Any, what: str, arguments: Mapping[str, Any]) -> Any:
    """Call a handler of `edgec.farm.scheduler` through one of Dask's RPC objects.

    OSError: the line is broken, or stays silent. EdgecError: as the other side raised it.
    """
    try:
        return answer(
            await asyncio.wait_for(getattr(scheduler, f"farm_{what}")(**arguments), PATIENCE)
        )
    except RuntimeError as error:  # Dask's word for a pool of connections that is closed
        raise OSError(str(error)) from error


class Farm:
    """Calls to a scheduler, over one connection that is opened anew where it broke.

    Used as `async with Farm(address) as farm: await farm.call("jobs")`.
    """

    def __init__(self, to: Address) -> None:
        from distributed.core import ConnectionPool

        security = to.security()
        args = security.get_connection_args("client") if security else {}
        self._to, self._store = to, ""
        plain = ["msgpack"]  # numbers and text: nothing that arrives is unpickled
        self._pool = ConnectionPool(
            limit=4,
            connection_args=args,
            timeout=SECONDS,
            serializers=plain,
            deserializers=plain,
        )

    async def __aenter__(self) -> Farm:
        knock(self._to)
        await self._pool.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close()

    async def store(self) -> str:
        """The URL of the place where bundles wait."""
        self._store = self._store or str((await self.call("info"))["store"])
        return self._store

    async def call(self, what: str, **arguments: Any) -> Any:
        """Call a handler of `edgec.farm.scheduler`. ToolchainError: nobody answers."""
        try:
            return await ask(self._pool(self._to.url), what, arguments)
        except OSError as error:
            raise ToolchainError(
                f"{self._to.url} does not answer: {error}",
                hint="jobs are kept; start the scheduler again, or ask again when it is back",
            ) from error
