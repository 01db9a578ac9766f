"""Reads members from the cache that keycloak_cache_auth keeps in Redis.

    cache = MemberCache("redis://127.0.0.1:6379/0", namespace="members", ttl=60)
    member = cache.find(tenant, issuer, kc_id, sid=sid, issued_at=iat)

Issuer, kc_id (`sub`), sid and iat come from a token that has been verified. The rules
are those of docs/operating.md, "What stands in Redis". One MemberCache serves all
threads of a process; it connects when it is first used.
"""

import base64
import hashlib
import json
import re
import struct
import time
from dataclasses import dataclass
from typing import Dict, List, Optional, Union

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from flush_log import ALL, EVENT_ID, GENERATION, FlushLog, Unavailable, parse_position

__all__ = ["Member", "MemberCache", "Unavailable", "member_key"]

MAX_ENTRY_SIZE = 64 << 10  # bytes
MAX_ATTRIBUTES = 256
MAX_TIME = 253402300799999  # the end of the year 9999, in milliseconds
CLOCK_TOLERANCE = 1.0  # seconds by which the clock of the node that wrote may be ahead
PART = re.compile(r"[A-Za-z0-9._-]{1,64}")
TENANT = re.compile(r"[!-9;-z|~]+")  # visible ASCII without ":", "{" and "}"

# What an entry and the member in it hold, besides what may be left out.
ENTRY = {"v": int, "gen": str, "pos": str, "event": str, "tenant": str, "issuer": str, "kc_id": str,
         "loaded_at": int, "expires": int, "keep": int, "member": dict}
MEMBER = {"kc_id": str, "tenant": str, "active": bool, "id": str}
SEALED = {"v": int, "key": str, "salt": str, "data": str}  # with `secret`


@dataclass(frozen=True)
class Member:
    """The application's own record of one user in one tenant."""

    kc_id: str
    tenant: str
    issuer: str
    id: str
    attributes: Dict[str, Union[str, List[str]]]
    loaded_at: float  # Unix time


def member_key(prefix, namespace, tenant, issuer, kc_id, claims=""):
    """The key of a member; ValueError if there can be none."""
    if not TENANT.fullmatch(tenant) or not issuer or not kc_id:
        raise ValueError("no such member")
    name = issuer.encode()
    digest = hashlib.sha256(struct.pack(">Q", len(name)) + name).digest()[:16]
    digest = base64.urlsafe_b64encode(digest).decode().rstrip("=") + ("." + claims if claims else "")
    return ":".join((prefix, "3", tenant, "m", namespace, digest, kc_id)).encode()


def decode(text):
    """Reads an entry, strictly: whatever is not as documented is a ValueError."""
    entry = _parse(text, ENTRY, {"claims": str})
    member = entry["member"]
    _check(member, MEMBER, {"issuer": str, "attributes": dict})
    attributes = member.setdefault("attributes", {})
    for value in attributes.values():
        if type(value) is not str and not (type(value) is list and all(type(item) is str for item in value)):
            raise ValueError("an attribute is neither a text nor a list of texts")
    if (entry["v"] != 3 or not entry["tenant"] or not entry["issuer"] or not entry["kc_id"]
            or not GENERATION.fullmatch(entry["gen"]) or not EVENT_ID.fullmatch(entry["event"]) or len(attributes) > MAX_ATTRIBUTES
            or not 0 <= entry["loaded_at"] < entry["expires"] <= entry["keep"] <= MAX_TIME):
        raise ValueError("not an entry")
    entry["pos"] = parse_position(entry["pos"])
    return entry


def _parse(text, required, optional):
    try:
        value = json.loads(text.decode(), object_pairs_hook=_object)
        json.dumps(value, ensure_ascii=False).encode()  # refuses half a surrogate pair
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check(value, required, optional)
    return value


def _object(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)


def _check(value, required, optional):
    """These names and no others, of exactly these types: to Python, True is an int."""
    if type(value) is not dict or not required.keys() <= value.keys() <= {**required, **optional}.keys():
        raise ValueError("names are missing, or unknown")
    for name, kind in {**required, **optional}.items():
        if name in value and type(value[name]) is not kind:
            raise ValueError("a value is of the wrong type")


class Sealer:
    """Decrypts values that were written with one of the secrets."""

    def __init__(self, secrets):
        self._secrets = {}
        for secret in secrets:
            secret = secret.encode() if isinstance(secret, str) else secret
            self._secrets[_derive(secret, None, b"keycloak-cache-auth key id", 8).hex()] = secret

    def open(self, key, value):
        """The entry in a value that stands under this key. Others are a ValueError,
        those that are not encrypted included: anybody could have written them."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        sealed = _parse(value, SEALED, {})
        salt, data = (base64.b64decode(sealed[name], validate=True) for name in ("salt", "data"))
        secret = self._secrets.get(sealed["key"])
        if sealed["v"] != 3 or len(salt) != 32 or secret is None:
            raise ValueError("not encrypted with a known secret")
        try:
            return AESGCM(_derive(secret, salt, b"keycloak-cache-auth entry v3", 32)).decrypt(bytes(12), data, key)
        except InvalidTag:
            raise ValueError("not encrypted for this key") from None


def _derive(secret, salt, info, length):
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt, info).derive(secret)


class MemberCache:
    """namespace, prefix, ttl, max_blind and secrets are as in the Caddyfile, times in
    seconds. After refresh_every seconds at most, a flush is known here."""

    def __init__(self, client, namespace, prefix="kca", ttl=60.0, max_blind=5.0, secrets=(), refresh_every=0.1,
                 clock=time.time, monotonic=time.monotonic):
        if isinstance(client, str):
            client = redis.Redis.from_url(client, socket_timeout=0.5, socket_connect_timeout=0.5,
                                          retry=Retry(NoBackoff(), 1))
        if client.get_encoder().decode_responses:
            raise ValueError("the client has to be one with decode_responses=False")
        if not PART.fullmatch(prefix) or not PART.fullmatch(namespace):
            raise ValueError("prefix and namespace: 1 to 64 letters, digits, '.', '-' and '_'")
        self._redis, self._prefix, self._namespace = client, prefix, namespace
        self._ttl, self._clock = ttl, clock
        self._sealer = Sealer(secrets) if secrets else None
        self.log = FlushLog(client, prefix + ":3:log", max_blind, refresh_every, clock, monotonic)

    def find(self, tenant, issuer, kc_id, *, sid, issued_at, claims="") -> Optional[Member]:
        """The member, or None if the cache has none that may be used now, or if the token
        was logged out. sid ("" if it has none) and issued_at (`iat`) are the token's.
        claims is the digest of those that the resolvers read, "" if they read none.

        Raises Unavailable if the cache cannot be asked, which is not the user's fault."""
        self.log.follow()
        try:
            key = member_key(self._prefix, self._namespace, tenant, issuer, kc_id, claims)
            value = self._redis.getrange(key, 0, MAX_ENTRY_SIZE)
            if not value or len(value) > MAX_ENTRY_SIZE:
                return None
            entry = decode(self._sealer.open(key, value) if self._sealer else value)
        except ValueError:
            return None
        except redis.RedisError as error:
            if str(error).startswith("WRONGTYPE"):
                return None
            raise Unavailable("the cache cannot be read") from error

        member, now = entry["member"], self._clock()
        age = now - entry["loaded_at"] / 1000
        scopes = (ALL, ("tenant", tenant), ("member", tenant, kc_id), ("member_id", tenant, member["id"]),
                  ("user", issuer, kc_id), ("kc_id", kc_id))
        usable = (
            (entry["tenant"], entry["issuer"], entry["kc_id"]) == (tenant, issuer, kc_id)
            and (member["tenant"], member["kc_id"]) == (tenant, kc_id)
            and member.get("issuer", "") in ("", issuer)
            and entry.get("claims", "") == claims
            and member["active"]
            and -CLOCK_TOLERANCE <= age < self._ttl
            and now < entry["expires"] / 1000
            and self.log.admits(entry["gen"], entry["pos"], entry["event"], scopes)
            and not self.log.logged_out(issuer, sid, kc_id, issued_at)
        )
        if not usable:
            return None
        return Member(kc_id, tenant, issuer, member["id"], member["attributes"], entry["loaded_at"] / 1000)
