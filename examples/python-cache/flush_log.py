"""Follows the flush log of keycloak_cache_auth, a Redis stream.

The log says which entries of the cache are not to be used any more, and which tokens
were logged out. What proves that no event was missed is that the last one known is
read again along with those after it: a log in which it is missing is another log.
"""

import bisect
import hashlib
import re
import secrets
import struct
import threading
from collections import deque

import redis

MAX_TIME = 253402300799  # the end of the year 9999, in seconds
MAX_ID, MAX_NAME = 512, 2048  # bytes of sid and sub, and of other names
MAX_EVENT = 8 << 10  # bytes of its names and values
LOGOUT_LIFE = 87_000  # seconds that a logout lasts at most: a day and ten minutes
LOGOUT_LEAD = 300  # seconds that it may be ahead; more would refuse tokens yet to come
MAX_FENCES, MAX_LOGOUTS = 100_000, 50_000  # that are remembered
MAX_EVENTS, MAX_GENERATIONS = 100_000, 1000  # that are remembered to have been read
PAGE = 1000  # events read at once
QUIET = 1.0  # seconds for which a Redis that failed is left alone
GENERATION = re.compile(r"[A-Za-z0-9_-]{1,64}")
EVENT_ID = re.compile(r"[0-9a-f]{16}")
POSITION = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})")
INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
ALL = ("all",)


class Unavailable(Exception):
    """Redis or its flush log cannot be read: nothing can be said of any member."""


def parse_position(text):
    """The id of an event as two numbers, which compare as the events stand in the log."""
    match = POSITION.fullmatch(text)
    position = tuple(map(int, match.groups())) if match else (1 << 64, 0)
    if max(position) >= 1 << 64:
        raise ValueError("not a position")
    return position


def event_id(fields):
    """What tells an event from another one that got its position: the first 8 bytes of
    SHA-256 over names and values, sorted by name, each after its length."""
    digest = hashlib.sha256()
    for name, value in sorted(fields.items()):
        for text in (name, value):
            digest.update(struct.pack(">Q", len(text)) + text)
    return digest.hexdigest()[:16]


def flushed_scope(event):
    """Whose entries an event makes invalid, None for nobody's. In doubt everybody's."""
    kind, issuer, tenant = (event.get(name, "") for name in ("kind", "issuer", "tenant"))
    kc_id, member_id = event.get("kc_id", ""), event.get("member_id", "")
    if kind == "logout":
        return ("user", issuer, event["sub"]) if parse_logout(event) and event.get("sub") else None
    if kind not in ("", "flush", "generation"):
        return None  # of a later version
    if kind != "flush" or any(_size(name) > MAX_NAME for name in (issuer, tenant, kc_id, member_id)):
        return ALL
    scope = event.get("scope")
    if scope == "tenant" and tenant:
        return ("tenant", tenant)
    if scope == "member" and tenant and bool(kc_id) != bool(member_id):
        return ("member", tenant, kc_id) if kc_id else ("member_id", tenant, member_id)
    if scope == "user" and kc_id:
        return ("user", issuer, kc_id) if issuer else ("kc_id", kc_id)
    return ALL


def parse_logout(event):
    """((kind, issuer, id), iat, until) of a logout, None if it cannot be read."""
    issuer, sid, sub = (event.get(name, "") for name in ("issuer", "sid", "sub"))
    times = [event.get("iat", ""), event.get("until", "")]
    if not issuer or not (sid or sub) or not all(map(INTEGER.fullmatch, times)):
        return None
    issued_at, until = map(int, times)
    if _size(issuer) > MAX_NAME or max(_size(sid), _size(sub)) > MAX_ID:
        return None
    if not (0 <= issued_at <= MAX_TIME and 0 <= until <= MAX_TIME):
        return None
    return (("sid", issuer, sid) if sid else ("sub", issuer, sub)), issued_at, until


def _size(text):
    return len(text.encode(errors="surrogateescape"))


def _text(value):
    return value.decode(errors="surrogateescape")


class _View:
    """The log since it last began, as far as it was read."""

    def __init__(self):
        self.generation, self.floor, self.fences, self.last = "", (0, 0), {}, None
        self.events = []  # position and id of the generation's last ones
        self.generations = deque(maxlen=MAX_GENERATIONS)  # this one, and those before it

    def apply(self, record, event):
        at = parse_position(record[0].decode())
        scope = flushed_scope(event)
        if event.get("kind") == "generation" and GENERATION.fullmatch(event.get("id", "")):
            # The floor first: until all is done, other threads find nothing valid.
            self.floor, self.generation, self.fences = at, event["id"], {}
            self.events = []
            self.generations.append(self.generation)
        elif scope:
            if len(self.fences) >= MAX_FENCES:
                self.floor, self.fences = at, {}  # a flush of everybody, to stay small
            self.fences[scope] = at
        if len(self.events) >= MAX_EVENTS:  # a copy: another thread may be searching in it
            self.events = self.events[MAX_EVENTS // 4:]
        self.events.append((at, event_id(record[1])))
        self.last = record

    def admits(self, generation, position, id, scopes):
        # Exactly this event has been read there: after a failover that lost events,
        # others may have read another one at the same position.
        events, fences = self.events, self.fences
        index = bisect.bisect_left(events, (position, id))
        return (generation == self.generation and position >= self.floor
                and events[index:index + 1] == [(position, id)]
                and all(position >= fences.get(scope, (0, 0)) for scope in scopes))


class FlushLog:
    """The log behind one client. max_blind and refresh_every are seconds."""

    def __init__(self, client, key, max_blind, refresh_every, clock, monotonic):
        self._redis, self._key, self._max_blind, self._refresh_every = client, key, max_blind, refresh_every
        self._clock, self._monotonic = clock, monotonic
        self._reading = threading.Lock()
        self._view = None  # None while the log is not followed
        self._known = deque(maxlen=MAX_GENERATIONS)  # the generations of former views
        self._fresh = self._failed = float("-inf")  # monotonic times
        self._logouts = {}  # they outlive generations

    def follow(self):
        """Reads the log if that was not done just now. Raises Unavailable if what is
        known of it is older than max_blind."""
        now = self._monotonic()
        if now - self._fresh >= self._refresh_every and now - self._failed >= QUIET:
            # One thread reads; the others go on with what is known, if it is good enough.
            if self._reading.acquire(blocking=self._blind()):
                try:
                    self._refresh()
                except Unavailable:
                    pass  # it shows below
                finally:
                    self._reading.release()
        if self._blind():
            raise Unavailable("the flush log cannot be read")

    def refresh(self):
        """Reads the log to its end."""
        with self._reading:
            self._refresh()

    def admits(self, generation, position, id, scopes):
        """Whether no event refuses an entry that was loaded after this event of the log."""
        view = self._view
        return view is not None and view.admits(generation, position, id, scopes)

    def logged_out(self, issuer, sid, sub, issued_at):
        now, issued_at = int(self._clock()), int(issued_at)
        session = self._logouts.get(("sid", issuer, sid), (0, 0)) if sid else (0, 0)
        user = self._logouts.get(("sub", issuer, sub), (-1, 0))
        return session[1] > now or (issued_at <= user[0] and user[1] > now)

    def _blind(self):
        return self._view is None or self._monotonic() - self._fresh > self._max_blind

    def _refresh(self):
        start = self._monotonic()
        try:
            if self._view is not None and not self._read(self._view):
                self._known.extend(self._view.generations)
                self._view = None  # events were lost: nothing can be said of any entry
            if self._view is None:
                self._begin()
        except (redis.RedisError, ValueError) as error:
            self._failed = self._monotonic()
            raise Unavailable("the flush log cannot be read") from error
        self._fresh = start

    def _read(self, view):
        """Applies what is new. False if the last event known is not where it was."""
        while True:
            start = view.last[0] if view.last else b"-"
            page = [(at, dict(fields)) for at, fields in self._redis.xrange(self._key, start, "+", PAGE + 1)]
            if view.last:
                if not page or page[0] != view.last:
                    return False
                page = page[1:]
            for record in page[:PAGE]:
                event = self._event(record[1])
                self._remember(event)
                view.apply(record, event)
            if len(page) < PAGE:
                return True

    def _begin(self):
        """Reads the log from its beginning. It has to end in a generation that was never
        followed: events that only some have seen may be lost. If there is none
        it begins one, as each node would; that is a flush of everybody."""
        view, appended = _View(), False
        while True:
            if not self._read(view):
                raise ValueError("the log changes while it is read")
            if view.generation not in ("", *self._known):
                break
            if appended:
                raise ValueError("the log does not show what was appended to it")
            event = {"kind": "generation", "id": secrets.token_hex(16)}
            self._redis.xadd(self._key, event, maxlen=100_000, approximate=True)
            appended = True
        self._view = view

    def _event(self, fields):
        event = {_text(name): _text(value) for name, value in fields.items()}
        if sum(len(name) + len(value) for name, value in fields.items()) > MAX_EVENT:
            return {"kind": "ignored"} if event.get("kind") == "logout" else {}
        stone = parse_logout(event) if event.get("kind") == "logout" else None
        if stone and stone[1] > self._clock() + LOGOUT_LEAD:
            return {"kind": "ignored"}
        return event

    def _remember(self, event):
        stone = parse_logout(event) if event.get("kind") == "logout" else None
        if stone is None:
            return
        key, issued_at, until = stone
        until = min(until, int(self._clock()) + LOGOUT_LIFE)
        old = self._logouts.get(key, (0, 0))
        self._logouts[key] = (max(issued_at, old[0]), max(until, old[1]))
        if len(self._logouts) > MAX_LOGOUTS:  # those that end first are forgotten first
            ordered = sorted(self._logouts.items(), key=lambda item: item[1][1])
            self._logouts = dict(ordered[MAX_LOGOUTS // 10:])
