"""A machine joins a pool: by hand, or as one of many made from an image, at its first boot.

SPDX-License-Identifier: Apache-2.0

    /etc/outboard/config.toml    the pool and this machine's token for it
    /etc/outboard/machine        whose token that is: a hash, `machine_mark`
    /etc/outboard/join.toml      in an image: the join token, of many uses, and the pool

A copy of a machine has another of the two at least, by which it knows that the token is not its
own: it joins anew if it was made from an image, and uses no token otherwise.
"""

from __future__ import annotations

import os

from outboard import __version__
from outboard.client import remote
from outboard.errors import ConfigurationError
from outboard.model.identity import machine_mark
from outboard.model.token import Token, parse_token
from outboard.settings import SYSTEM_CONFIGURATION_FILE
from outboard.settings_file import write_settings

IMAGE_FILE = "/etc/outboard/join.toml"
MACHINE_FILE = "/etc/outboard/machine"


def enrol(token: Token, url: str, name: str, source: str) -> tuple[dict[str, object], str]:
    """Exchange a join token; returns the controller's answer and the authority's certificate."""
    pem = remote.fetch_authority(url, token.authority, source)
    connection = remote.connect(url, pem, "", source)
    body: dict[str, object] = {
        "token": str(token),
        "name": name,
        "machine": machine_mark(),
        "release": __version__,
    }
    try:
        return connection.call("POST", "/v1/enrol", body), pem
    finally:
        connection.close()


def become_client(url: str, answer: dict[str, object], pem: str) -> None:
    """Keep what a client machine was given, and whose it is."""
    authority = os.path.join(os.path.dirname(SYSTEM_CONFIGURATION_FILE), "authority.pem")
    keep_authority(authority, pem)
    settings = {"pool": url, "token": str(answer["token"]), "authority": authority}
    write_settings(SYSTEM_CONFIGURATION_FILE, settings)
    # Last: a machine that lost its power before it joins again.
    _replace(MACHINE_FILE, f"{machine_mark()}\n")


def keep_authority(path: str, pem: str) -> None:
    """Put the authority's certificate, which is no secret, where the configuration names it."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    _replace(path, pem)


def prepare_image(token: Token, url: str) -> None:
    """This machine is an image from here on: each machine made from it joins by itself."""
    remote.parse_urls(url, "the command line")
    write_settings(IMAGE_FILE, {"token": str(token), "url": url})


def join_as_image(name: str) -> str:
    """Join if this machine was made from an image and has no token of its own; returns which client
    it became, empty if there was nothing to do. Raises what keeps it from joining."""
    if not os.path.exists(IMAGE_FILE) or (os.path.exists(MACHINE_FILE) and not is_copy()):
        return ""
    import tomllib

    try:
        with open(IMAGE_FILE, "rb") as file:
            told = tomllib.load(file)
        token, url = parse_token(str(told["token"])), str(told["url"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{IMAGE_FILE} cannot be used: {error}",
            "write it anew: outboard join TOKEN URL --image",
        ) from error
    answer, pem = enrol(token, url, name, IMAGE_FILE)
    if answer["kind"] == "node":
        raise ConfigurationError(
            f"the token in {IMAGE_FILE} is one for GPU servers",
            "images of client machines have one of: outboard tokens create --join host",
        )
    become_client(url, answer, pem)
    return str(answer["name"])


def is_copy() -> bool:
    """Whether the token here is another machine's, of which this one is a copy."""
    try:
        with open(MACHINE_FILE, encoding="ascii") as file:
            return file.read().strip() != machine_mark()
    except OSError:
        return False  # joined by a release that did not keep it, or not at all


def _replace(path: str, text: str) -> None:
    try:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(f"{path}.new", path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
