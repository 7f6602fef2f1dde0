"""The authority: what it signs, a TLS client that trusts it alone accepts, under those names only.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from outboard.errors import ConfigurationError
from outboard.pki.authority import Authority, Credential, read_credential, write_credential

NOW = dt.datetime.now(dt.UTC)


def handshake(server: Credential, authority: Authority, name: str, folder: Path) -> str:
    """The TLS version that a client agrees on; raises what the client's verification says."""
    write_credential(str(folder), "server", server)
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(folder / "server.pem", folder / "server.key")
    trusting = ssl.create_default_context(cadata=authority.credential.certificate_pem.decode())
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            accepting.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()  # the client's refusal

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with trusting.wrap_socket(ours, server_hostname=name) as connection:
            return connection.version() or ""
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", ["gpus.example.org", "10.1.2.3", "::1"])
def test_a_controllers_certificate_holds_under_its_names(name: str, tmp_path: Path) -> None:
    authority = Authority.create("a pool", NOW)
    server = authority.issue_server(["gpus.example.org", "10.1.2.3", "::1"], NOW)
    assert handshake(server, authority, name, tmp_path) == "TLSv1.3"


def test_another_name_or_another_authority_is_refused(tmp_path: Path) -> None:
    authority = Authority.create("a pool", NOW)
    server = authority.issue_server(["gpus.example.org"], NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, authority, "other.example.org", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, Authority.create("a pool", NOW), "gpus.example.org", tmp_path)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority.create("a pool", NOW)
    old = authority.issue_server(["gpus"], NOW - dt.timedelta(days=900))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(old, authority, "gpus", tmp_path)


def test_keys_are_for_their_owner_alone_and_read_back(tmp_path: Path) -> None:
    authority = Authority.create("a pool", NOW)
    write_credential(str(tmp_path), "authority", authority.credential)
    assert stat.S_IMODE((tmp_path / "authority.key").stat().st_mode) == 0o600
    assert Authority(read_credential(str(tmp_path), "authority")).mark == authority.mark
    assert len(authority.mark) == 16


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = (Authority.create("a pool", NOW).credential for _ in range(2))
    with pytest.raises(ConfigurationError, match="does not belong"):
        Authority(Credential(one.certificate_pem, other.key_pem))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Authority(Credential(b"nonsense", one.key_pem))
    with pytest.raises(ConfigurationError, match=r"nothing\.pem"):
        read_credential(str(tmp_path), "nothing")


def test_what_is_no_name_is_said() -> None:
    with pytest.raises(ConfigurationError, match="neither a host name nor an address"):
        Authority.create("a pool", NOW).issue_server(["gpüs"], NOW)
