"""Who gets in: verifies a preface's grant and proof offline, and remembers whom it refused.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

from outboard.agent.epochs import Epochs
from outboard.agent.preface import JOINING, Nonces, Preface, verify_proof
from outboard.errors import Refusal
from outboard.model.grant import Grant, Verifier, data_plane_key, unseal
from outboard.model.ticket import Ticket, ticket_part

NEXT = "start a new session: outboard run -n 1 -- COMMAND"


class Admission:
    """One node's rules. What it needs is here: its key, the controllers' public keys, epochs."""

    def __init__(self, node: str, node_key: bytes, verifier: Verifier, epochs: Epochs) -> None:
        self._node = node
        self._node_key = node_key
        self._verifier = verifier
        self._epochs = epochs
        self._nonces = Nonces()
        self._used_tickets: dict[str, float] = {}

    def grant_of(self, preface: Preface, now_unix: float) -> Grant:
        """The grant that this connection may use; raises `Refusal`, and says why.

        In this order, so that nothing is told to, and nothing kept for, who has no key: signature,
        node, proof, nonce, end, expiry, epoch. A connection that joins a program which was
        admitted before may come when its grant has expired, or when a newer one exists.
        """
        grant = unseal(preface.grant, self._verifier)
        if grant.node != self._node:
            raise Refusal("grant", f"the grant is for {grant.node}, this is {self._node}", NEXT)
        verify_proof(data_plane_key(self._node_key, preface.grant), preface, now_unix)
        self._nonces.use(preface.nonce, now_unix)
        ticket = ticket_part(preface.grant)
        if ticket is not None and preface.purpose == "command":
            self._use_ticket(ticket, now_unix)
        if self._epochs.ended(grant.allocation):
            raise ended()
        if preface.purpose in JOINING:
            return grant  # a renewal or takeover since must not break that program
        if grant.expires_unix < now_unix:
            raise Refusal("expired", "the grant has expired: nobody renewed it", NEXT)
        if not self._epochs.allows(grant.allocation, grant.epoch):
            raise Refusal(
                "grant",
                "a newer grant of this session exists: another holder has taken it over",
                "use the session file that the new holder wrote, or " + NEXT,
            )
        try:
            self._epochs.saw(grant.allocation, grant.epoch, grant.expires_unix, now_unix)
        except OSError as error:
            raise Refusal(
                "no_worker",
                f"the server cannot write its record of grants: {error.strerror}",
                "make room on the server's disk",
            ) from error
        return grant

    def _use_ticket(self, ticket: Ticket, now_unix: float) -> None:
        """A ticket opens one process's command connection, once; others name its worker."""
        if ticket.expires_unix < now_unix:
            raise Refusal("expired", "the ticket has expired", "run the program again")
        if ticket.nonce in self._used_tickets:
            raise Refusal("grant", "the ticket was used before", "run the program again")
        # In the order of their use, so about that of their expiry: the old ones are in front.
        for old, expires_unix in list(self._used_tickets.items())[:64]:
            if expires_unix >= now_unix:
                break
            del self._used_tickets[old]
        self._used_tickets[ticket.nonce] = ticket.expires_unix

    def key_of(self, preface: Preface) -> bytes:
        """The data plane's key of the connection's grant."""
        return data_plane_key(self._node_key, preface.grant)

    def end(self, allocation: str, epoch: int, until_unix: float, now_unix: float) -> None:
        """Refuse the allocation's grants from now on; `until_unix` is when the last expires."""
        self._epochs.end(allocation, epoch, until_unix, now_unix)


def ended() -> Refusal:
    """What programs of a session that is over are told."""
    return Refusal("ended", "the session has ended", NEXT)
