"""All listening sockets of one router: bound, passed by systemd, or taken over; and the claims on their addresses."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Collection
from pathlib import Path

import structlog

from router.config.values import Address
from router.process.claims import ADMIN, Offer, Predecessor, claim
from router.process.listening import BACKLOG
from router.process.orphans import Orphans
from router.process.sockets import ListenError, chosen, is_at, listening_sockets, resolved, shown, sockets_of_systemd

_NOBODY: tuple[int, ...] = ()


class Sockets:
    """Per address one socket for each worker, or one or several that all share. The parent is the owner."""

    def __init__(self, addresses: list[Address], workers: int, admin: Address | None) -> None:
        self._addresses = addresses
        self._workers = workers
        self._admin_address = admin
        self._listeners: list[Offer] = []
        self.admin: socket.socket | None = None
        """None: it could not be bound; control says why."""
        self.claims: list[socket.socket] = []
        self._borrowed: set[str] = set()
        """Addresses whose sockets are a predecessor's as well, as long as it serves."""
        self._log = structlog.get_logger()

    def obtain(self, predecessor: Predecessor | None) -> Orphans:
        """Get a socket for every address; those who hold some of them still, though their parent is dead.

        Raises ListenError, after which nothing is open.
        """
        orphans = Orphans()
        try:
            passed = sockets_of_systemd(os.environ)
            if predecessor is None:
                self.claim()
                orphans = Orphans.find(str(address) for address in self._addresses)
            for address in self._addresses:
                self._listeners.append(self._obtain(address, passed, predecessor, orphans))
            orphans.end_controls()
            self.admin = self._obtain_admin(passed, predecessor)
        except ListenError:
            self.remove_files()
            self.close()
            for one in self.claims:
                one.close()
            if predecessor is not None:
                predecessor.close()
            raise
        used = {one.fileno() for offer in self._listeners for one in offer.sockets}
        for one in passed:
            if one.fileno() not in used and one is not self.admin:
                self._log.warning(f"systemd passed a socket for {shown(one)}, which `listen:` does not name")
        return orphans

    def _obtain(
        self, address: Address, passed: list[socket.socket], predecessor: Predecessor | None, orphans: Orphans
    ) -> Offer:
        name = str(address)
        taken = predecessor.offers.pop(name, None) if predecessor is not None else None
        if taken is not None:
            self._borrowed.add(name)
            sockets = list(taken.sockets)
            missing = self._workers - len(sockets)
            if missing > 0 and not address.path and sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
                sockets += listening_sockets(address, missing, beside=True)
            return Offer(name, sockets, taken.is_ours)
        if passed:
            return Offer(name, chosen(passed, address), is_ours=False)
        return Offer(name, listening_sockets(address, self._workers, beside=name in orphans.addresses))

    def _obtain_admin(self, passed: list[socket.socket], predecessor: Predecessor | None) -> socket.socket | None:
        address = self._admin_address
        if address is None:
            return None
        offers = predecessor.offers.pop(ADMIN, None) if predecessor is not None else None
        with contextlib.suppress(OSError):
            for one in (*(offers.sockets if offers is not None else ()), *passed):
                if is_at(one, address):
                    return one
            family, where = resolved(address.host, address.port)
            admin = socket.socket(family, socket.SOCK_STREAM)
            try:
                admin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                admin.bind(where)
                admin.listen(BACKLOG)
            except OSError:
                admin.close()
                raise
            return admin
        return None

    def claim(self) -> None:
        """Be the one router of these addresses. Raises ListenError if there is another one."""
        self.claims = claim(self._addresses)

    def offers(self) -> list[Offer]:
        """What a successor gets."""
        admin = [Offer(ADMIN, [self.admin])] if self.admin is not None else []
        return [*(offer for offer in self._listeners if offer.sockets), *admin]

    def descriptors(self) -> tuple[int, ...]:
        """What every worker gets: all sockets of all slots."""
        return tuple(one.fileno() for offer in self._listeners for one in offer.sockets)

    def of_worker(self, slot: int) -> list[str]:
        """The listeners of one worker: ``number:own:siblings`` with descriptors.

        With more sockets than workers (fewer workers than before a take-over) some workers have several of their own;
        with fewer, some share one.
        """
        words = []
        for number, offer in enumerate(self._listeners):
            descriptors = [one.fileno() for one in offer.sockets]
            own = descriptors[slot :: self._workers] or [descriptors[slot % len(descriptors)]]
            siblings = [one for one in descriptors if one not in own]
            words += [f"{number}:{one}:{','.join(map(str, siblings if one == own[0] else _NOBODY))}" for one in own]
        return words

    def close(self, numbers: Collection[int] | None = None) -> None:
        """Close the listeners, or those with these numbers; workers have copies of their own."""
        for number, offer in enumerate(self._listeners):
            if numbers is None or number in numbers:
                for one in offer.sockets:
                    one.close()
        if numbers is None and self.admin is not None:
            self.admin.close()

    def inherit(self) -> None:
        """The predecessor ends: what was borrowed is this router's own. Raises ListenError as ``claim``."""
        self._borrowed.clear()
        self.claim()

    def leave_files(self) -> None:
        """The files of unix sockets are another router's from now on."""
        self._listeners = [offer._replace(is_ours=False) for offer in self._listeners]

    def remove_files(self) -> None:
        """The files of the unix sockets that are ours."""
        for address, offer in zip(self._addresses, self._listeners, strict=False):
            if address.path and offer.is_ours and offer.address not in self._borrowed:
                Path(address.path).unlink(missing_ok=True)
