"""The agent's calls to its controllers: HTTPS, trusting the pool's authority alone, one at a time.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import ssl
from typing import Any

import httpx2

from outboard.errors import ConfigurationError, PoolUnreachable, error_from_problem

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 30.0


class ControllerLink:
    """Calls the controller that answered last, and the next of the list when it does not."""

    def __init__(self, urls: tuple[str, ...], authority_pem: str, token: str) -> None:
        if not urls:
            raise ConfigurationError("no controller is known", "outboard join TOKEN URL")
        self._urls = urls
        self._at = 0
        context = ssl.create_default_context(cadata=authority_pem)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._client = httpx2.AsyncClient(
            verify=context,
            headers={"Authorization": f"Bearer {token}"},
            timeout=httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            trust_env=False,
        )

    def know(self, urls: tuple[str, ...]) -> None:
        """These are the controllers now; the one that answered last stays the one to call."""
        if self.url in urls:
            self._urls, self._at = urls, urls.index(self.url)
        else:
            self._urls, self._at = (self.url, *urls), 0

    @property
    def url(self) -> str:
        return self._urls[self._at]

    async def post(
        self, path: str, body: dict[str, Any], timeout_s: float = ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        """One call. Raises `PoolUnreachable` when nobody answers, else what the controller says."""
        url = self.url
        timeout = httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._client.post(url + path, json=body, timeout=timeout)
            answer = response.json() if response.content else {}
        except (httpx2.TransportError, ValueError, ssl.SSLError) as error:
            if url == self.url:  # else another call has found it out, and gone on to the next
                self._at = (self._at + 1) % len(self._urls)
            raise PoolUnreachable(
                f"the controller {url} does not answer: {error or type(error).__name__}",
                "look there: systemctl status outboard-controller",
            ) from error
        if not isinstance(answer, dict):
            raise PoolUnreachable(f"{url} does not speak this API", "check the address")
        if response.status_code >= 400:
            raise error_from_problem(answer, response.status_code)
        return answer

    async def close(self) -> None:
        await self._client.aclose()
