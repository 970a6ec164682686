"""Who may take part: addresses, certificates, and the message for each way of being refused."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from farms import Farm, free_port, until

from edgec.errors import InputError, InternalError, ToolchainError, UnsupportedError
from edgec.farm import certs
from edgec.farm.link import Address, address, answer, failure, knock

NAMES = ("scheduler", "pi", "user")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    certs.make(folder, NAMES)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    certs.make(folder, NAMES)
    return folder


@pytest.fixture(scope="module")
def fenced(own: Path) -> Iterator[Farm]:
    """A farm with mutual TLS."""
    with Farm({"pi": "raspberry-pi-5"}, certs=own) as found:
        found.up()
        yield found


def edgec(*words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edgec", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1", "tcp://localhost:9", "tcp://[::1]:9"])
def test_loopback_needs_no_certificate(url: str) -> None:
    assert address(url, None).security() is None


def test_an_address_has_a_usual_port() -> None:
    assert address("tcp://127.0.0.1", None).url == "tcp://127.0.0.1:8786"
    assert address("tls://shelf", Path("certs")).port == 8786


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "shelf", "127.0.0.1.evil.org", "[::]"])
def test_off_loopback_nothing_goes_without_tls(host: str) -> None:
    with pytest.raises(InputError, match="mutual TLS"):
        address(f"tcp://{host}:8786", Path("certs"))
    with pytest.raises(InputError, match="wants a certificate"):
        address(f"tls://{host}:8786", None)


@pytest.mark.parametrize("url", ["", "shelf:8786", "http://shelf", "tcp://127.0.0.1:x", "tls://:9"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InputError, match="no address of a farm"):
        address(url, Path("certs"))


@pytest.mark.parametrize("verb", [["up", "--host", "0.0.0.0"], ["join", "tcp://10.0.0.1"]])
def test_neither_side_starts_without_certificates(verb: list[str], tmp_path: Path) -> None:
    done = edgec("farm", *verb, "--folder", tmp_path)
    assert done.returncode == 3
    assert "mutual TLS" in done.stderr
    assert "farm certs" in done.stderr


def test_a_folder_without_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ca\.pem does not exist"):
        address("tls://shelf", tmp_path).security()


def test_certificates_are_secret_and_of_one_authority(own: Path) -> None:
    for key in [own / "ca.key", *(own / name / "key.pem" for name in NAMES)]:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert {(own / name / "ca.pem").read_bytes() for name in NAMES} == {
        (own / "ca.pem").read_bytes()
    }
    assert not any((own / name / "ca.key").exists() for name in NAMES)


def test_an_authority_is_used_again_and_nothing_is_replaced(tmp_path: Path) -> None:
    certs.make(tmp_path, ("a",))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    certs.make(tmp_path, ("b",))
    with pytest.raises(InputError, match="has a certificate"):
        certs.make(tmp_path, ("a",))
    assert {path: path.read_bytes() for path in before} == before
    certs.make(tmp_path, ("a",), force=True)
    assert (tmp_path / "a/cert.pem").read_bytes() != before[tmp_path / "a/cert.pem"]


@pytest.mark.parametrize("name", ["../a", "", "a/b", ".a", "a" * 64])
def test_names_of_machines_are_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no name of a machine"):
        certs.make(tmp_path, (name,))


def test_an_authority_without_its_key(tmp_path: Path) -> None:
    certs.make(tmp_path, ("a",))
    (tmp_path / "ca.key").unlink()
    with pytest.raises(InputError, match=r"ca\.key is missing"):
        certs.make(tmp_path, ("b",))


def test_the_right_certificate_is_let_in(fenced: Farm, own: Path) -> None:
    knock(address(fenced.url, own / "user"))
    done = edgec("farm", "devices", "--farm", fenced.url, "--certs", own / "user", "--json", "-")
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_device_joins_with_tls_and_listens_nowhere_without(fenced: Farm) -> None:
    fenced.join("pi")
    until(lambda: fenced.here() == {"pi"}, "it joined")
    for name in ("scheduler", "pi"):
        for host, port in listening(fenced.processes[name].pid):
            plain = Address(f"tcp://{host}:{port}")
            if host != "127.0.0.1":
                pytest.fail(f"{name} listens at {host}:{port}")
            try:
                knock(plain, seconds=0.5)
            except (InputError, ToolchainError):
                continue
            pytest.fail(f"{name} greets without TLS at {port}")


def test_a_certificate_of_another_authority(fenced: Farm, foreign: Path) -> None:
    done = edgec("farm", "devices", "--farm", fenced.url, "--certs", foreign / "user")
    assert done.returncode == 3
    assert "its certificate is not of the authority in" in done.stderr


def test_a_certificate_that_the_farm_refuses(fenced: Farm, own: Path, foreign: Path) -> None:
    """Who knows the authority's public part, but has no certificate of it."""
    mixed = foreign / "mixed"
    mixed.mkdir()
    (mixed / "ca.pem").write_bytes((own / "ca.pem").read_bytes())
    for name in ("cert.pem", "key.pem"):
        (mixed / name).write_bytes((foreign / "user" / name).read_bytes())
    for words in (["devices", "--farm", fenced.url], ["join", fenced.url, "--folder", mixed]):
        python = fenced.folder / "python-pi"
        more = ["--python", python] if words[0] == "join" else []
        fenced.folder.joinpath("other").mkdir(exist_ok=True)
        if words[0] == "join":
            words[-1] = fenced.folder / "other"
        done = edgec("farm", *words, "--certs", mixed, *more)
        assert done.returncode == 3, done.stderr
        assert "refuses the certificate" in done.stderr


def test_no_certificate(fenced: Farm) -> None:
    done = edgec("farm", "devices", "--farm", fenced.url)
    assert done.returncode == 3
    assert "wants a certificate" in done.stderr
    with pytest.raises(InputError, match="does not greet") as found:
        knock(address(fenced.url.replace("tls", "tcp"), None), seconds=0.5)
    assert "mutual TLS" in found.value.hint


def test_a_stranger_without_a_certificate_is_told_nothing(fenced: Farm) -> None:
    """Not by our client, which would not try, but by whoever speaks TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", fenced.port), timeout=30) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
        context.wrap_socket(plain) as secure,
    ):
        secure.recv(1)


def test_nobody_listens() -> None:
    with pytest.raises(ToolchainError, match="nobody listens"):
        knock(address(f"tcp://127.0.0.1:{free_port()}", None))


def test_errors_travel_by_name() -> None:
    for kind in (InputError, ToolchainError, UnsupportedError):
        with pytest.raises(kind, match="what") as found:
            answer(failure(kind("what", hint="do")))
        assert found.value.hint == "do"
    with pytest.raises(InternalError, match="KeyError"):
        answer({"error": "KeyError", "message": "x", "hint": ""})


def listening(pid: int) -> list[tuple[str, int]]:
    """Where a process listens, by the kernel."""
    import psutil

    assert os.getpid() != pid
    found = psutil.Process(pid).net_connections("inet")
    return [(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN]
