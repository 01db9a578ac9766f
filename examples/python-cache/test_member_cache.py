"""Runs against a redis-server of its own: python -m unittest"""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import redis

import flush_log
from member_cache import MemberCache, Unavailable, _derive, member_key

ISSUER = "https://sso.example.com/realms/main"
GEN, POS = "generation-one", "1000-0"
LOG = "kca:3:log"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if not shutil.which("redis-server"):
            if os.environ.get("KCA_REQUIRE_SERVERS") == "1":
                raise RuntimeError("redis-server is not installed, and KCA_REQUIRE_SERVERS=1 demands it")
            raise unittest.SkipTest("SKIPPED: redis-server is not installed: apt-get install redis-server")
        cls.dir = tempfile.mkdtemp()
        cls.port = free_port()
        cls.process = None
        cls.start()

    @classmethod
    def start(cls):
        cls.process = subprocess.Popen(
            ["redis-server", "--port", str(cls.port), "--bind", "127.0.0.1", "--save", "", "--dir", cls.dir],
            stdout=subprocess.DEVNULL)
        cls.redis = redis.Redis(port=cls.port, socket_timeout=5)
        for _ in range(500):
            try:
                cls.redis.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.01)
        raise RuntimeError("redis-server does not answer")

    @classmethod
    def tearDownClass(cls):
        cls.redis.close()
        cls.process.terminate()
        cls.process.wait()
        shutil.rmtree(cls.dir)

    def setUp(self):
        if self.process.poll() is not None:
            self.start()
        self.redis.flushall()
        self.now, self.tick = 1_700_000_000.0, 0.0
        self.append("1000-0", kind="generation", id=GEN)
        self.cache = self.new_cache()
        self.addCleanup(lambda: self.cache._redis.close())

    def new_cache(self, **settings):
        return MemberCache(f"redis://127.0.0.1:{self.port}/0", "members",
                           clock=lambda: self.now, monotonic=lambda: self.tick, **settings)

    def append(self, at="*", **fields):
        return self.redis.xadd(LOG, fields, id=at)

    def event_at(self, position):
        """The id of the event at a position, of the first one if there is none."""
        try:
            events = self.redis.xrange(LOG, position, position)
        except redis.ResponseError:  # it is no position
            events = []
        events = events or self.redis.xrange(LOG, count=1) or [(b"", {})]
        return flush_log.event_id(events[0][1])

    def entry(self, member=(), **changes):
        millis = int(self.now * 1000)
        entry = {
            "v": 3, "gen": GEN, "pos": POS, "event": self.event_at(changes.get("pos", POS)), "tenant": "acme", "issuer": ISSUER, "kc_id": "alice",
            "loaded_at": millis, "expires": millis + 60_000, "keep": millis + 60_000,
            "member": {"kc_id": "alice", "tenant": "acme", "active": True, "id": "4711",
                       "attributes": {"roles": ["editor", "viewer"], "plan": "gold"}},
        }
        entry["member"].update(member)
        entry.update(changes)
        return {name: value for name, value in entry.items() if value is not None}

    def put(self, value, key=None):
        if not isinstance(value, (bytes, str)):
            value = json.dumps(value)
        self.redis.set(key or member_key("kca", "members", "acme", ISSUER, "alice"), value)

    def find(self, tenant="acme", issuer=ISSUER, kc_id="alice", sid="session", issued_at=1_699_999_990, claims=""):
        self.tick += 0.2  # longer than refresh_every
        return self.cache.find(tenant, issuer, kc_id, sid=sid, issued_at=issued_at, claims=claims)


class Entries(Case):
    def test_a_good_entry_is_the_member(self):
        self.put(self.entry())
        member = self.find()
        self.assertEqual((member.id, member.tenant, member.kc_id), ("4711", "acme", "alice"))
        self.assertEqual(member.attributes, {"roles": ["editor", "viewer"], "plan": "gold"})

    def test_what_may_be_left_out_or_be_there(self):
        entry = self.entry()
        del entry["member"]["attributes"]
        for name, good in {
            "no attributes": entry,
            "the member's issuer": self.entry(member={"issuer": ISSUER}),
            "an empty list": self.entry(member={"attributes": {"roles": []}}),
            "from a clock half a second ahead": self.entry(loaded_at=int(self.now * 1000) + 500),
            "64 KiB": json.dumps(self.entry()).ljust(64 << 10),
        }.items():
            with self.subTest(name):
                self.put(good)
                self.assertIsNotNone(self.find())

    def test_no_entry_is_no_member(self):
        self.assertIsNone(self.find())

    def test_entries_that_are_refused(self):
        millis = int(self.now * 1000)
        text = json.dumps(self.entry())
        member = self.entry()["member"]
        bad = {
            "another version": self.entry(v=1),
            "a version that is true": self.entry(v=True),
            "a version with a fraction": self.entry(v=3.0),
            "another generation": self.entry(gen="generation-two"),
            "a generation that is none": self.entry(gen="a b"),
            "older than the generation": self.entry(pos="999-9"),
            "a position that is none": self.entry(pos="1000"),
            "a position with a zero before": self.entry(pos="01000-0"),
            "a position beyond 64 bits": self.entry(pos="18446744073709551616-0"),
            "a position that was not read yet": self.entry(pos="1000-1"),
            "another event at the position": self.entry(event="0123456789abcdef"),
            "an event in upper case": self.entry(event=self.event_at(POS).upper()),
            "no event": self.entry(event=None),
            "another tenant": self.entry(tenant="globex"),
            "another case of the tenant": self.entry(tenant="Acme"),
            "another issuer": self.entry(issuer=ISSUER + "/"),
            "another user": self.entry(kc_id="bob"),
            "a member of another tenant": self.entry(member={"tenant": "globex"}),
            "a member who is another user": self.entry(member={"kc_id": "bob"}),
            "a member of another issuer": self.entry(member={"issuer": "https://other.example.com"}),
            "claims that were not asked with": self.entry(claims="digest"),
            "an inactive member": self.entry(member={"active": False}),
            "active that is 1": self.entry(member={"active": 1}),
            "an id that is a number": self.entry(member={"id": 4711}),
            "an attribute that is a number": self.entry(member={"attributes": {"age": 7}}),
            "an attribute that is null": self.entry(member={"attributes": {"age": None}}),
            "a list with a number": self.entry(member={"attributes": {"ages": ["7", 7]}}),
            "too many attributes": self.entry(member={"attributes": {str(i): "" for i in range(257)}}),
            "null attributes": self.entry(member={"attributes": None}),
            "an unknown name": self.entry(admin=True),
            "an unknown name in the member": self.entry(member={"admin": True}),
            "no keep": self.entry(keep=None),
            "no member": {name: value for name, value in self.entry().items() if name != "member"},
            "no id": dict(self.entry(), member={name: value for name, value in member.items() if name != "id"}),
            "older than the ttl": self.entry(loaded_at=millis - 60_000, expires=millis + 60_000),
            "expired for its writer": self.entry(loaded_at=millis - 10, expires=millis, keep=millis + 60_000),
            "from the future": self.entry(loaded_at=millis + 1_001),
            "expires before it was loaded": self.entry(loaded_at=millis, expires=millis - 1),
            "kept for less than it lives": self.entry(keep=millis + 1),
            "beyond the year 9999": self.entry(keep=253402300800000),
            "a name twice": text.replace('"v": 3', '"v": 3, "v": 3'),
            "names of another case": text.replace('"kc_id": "alice"', '"KC_ID": "alice"', 1),
            "text after it": text + "x",
            "two entries": text + text,
            "NaN": text.replace('"v": 3', '"v": NaN'),
            "half a surrogate pair": text.replace("gold", "\\ud800"),
            "bytes that are not UTF-8": text.replace("gold", "X").encode().replace(b"X", b"\xff"),
            "UTF-16": text.encode("utf-16"),
            "a byte order mark": b"\xef\xbb\xbf" + text.encode(),
            "nested deeply": "[" * 60_000,
            "larger than 64 KiB": text.ljust((64 << 10) + 1),
            "a list": [self.entry()],
            "null": "null",
            "empty": "",
        }
        for name, value in bad.items():
            with self.subTest(name):
                self.put(value)
                self.assertIsNone(self.find())
        self.put(self.entry())
        self.assertIsNotNone(self.find(), "the tests above prove nothing")

    def test_true_is_not_the_number_one(self):
        self.now = 0.5
        self.put(self.entry(loaded_at=1, expires=60_000, keep=60_000))
        self.assertIsNotNone(self.find())
        self.put(self.entry(loaded_at=True, expires=60_000, keep=60_000))
        self.assertIsNone(self.find())

    def test_a_value_that_is_not_a_string(self):
        self.redis.rpush(member_key("kca", "members", "acme", ISSUER, "alice"), "x")
        self.assertIsNone(self.find())

    def test_an_entry_under_another_members_key(self):
        self.put(self.entry(), member_key("kca", "members", "acme", ISSUER, "bob"))
        self.assertIsNone(self.find(kc_id="bob"))
        self.put(self.entry(), member_key("kca", "members", "globex", ISSUER, "alice"))
        self.assertIsNone(self.find(tenant="globex"))

    def test_names_that_could_leave_their_place_in_the_key(self):
        good = member_key("kca", "members", "acme", ISSUER, "alice").decode()
        for tenant in ("", "acme:m", "{acme}", "ac me", "acmé", "acme\n"):
            with self.subTest(tenant):
                self.put(self.entry(member={"tenant": tenant}, tenant=tenant), good.replace("acme", tenant, 1))
                self.assertIsNone(self.find(tenant=tenant))
        self.assertIsNone(self.find(kc_id=""))
        self.assertIsNone(self.find(issuer=""))

    def test_claims_are_part_of_key_and_entry(self):
        self.put(self.entry(claims="digest"), member_key("kca", "members", "acme", ISSUER, "alice", "digest"))
        self.assertIsNotNone(self.find(claims="digest"))
        self.put(self.entry(), member_key("kca", "members", "acme", ISSUER, "alice", "digest"))
        self.assertIsNone(self.find(claims="digest"))

    def test_the_key_is_the_documented_one(self):
        self.assertRegex(member_key("kca", "members", "acme", ISSUER, "a:b").decode(),
                         r"^kca:3:acme:m:members:[A-Za-z0-9_-]{22}:a:b$")

    def test_settings_that_cannot_work(self):
        with self.assertRaises(ValueError):
            MemberCache(redis.Redis(port=self.port, decode_responses=True), "members")
        for namespace, prefix in (("", "kca"), ("a:b", "kca"), ("members", "kca:")):
            with self.assertRaises(ValueError):
                MemberCache(f"redis://127.0.0.1:{self.port}/0", namespace, prefix)


class Secrets(Case):
    """Needs the package cryptography."""

    SECRET = "an example of a secret, thirty-two"

    def setUp(self):
        super().setUp()
        self.key = member_key("kca", "members", "acme", ISSUER, "alice")
        self.cache = self.new_cache(secrets=[self.SECRET, b"an older one, still read"])

    def seal(self, secret=SECRET, key=None, salt=bytes(range(32)), **changes):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        secret = secret.encode()
        k = _derive(secret, salt, b"keycloak-cache-auth entry v3", 32)
        data = AESGCM(k).encrypt(bytes(12), json.dumps(self.entry()).encode(), key or self.key)
        return {"v": 3, "key": _derive(secret, None, b"keycloak-cache-auth key id", 8).hex(),
                "salt": base64.b64encode(salt).decode(), "data": base64.b64encode(data).decode(), **changes}

    def test_both_secrets_are_read(self):
        self.put(self.seal())
        self.assertEqual(self.find().id, "4711")
        self.put(self.seal("an older one, still read"))
        self.assertEqual(self.find().id, "4711")

    def test_what_is_refused(self):
        good = self.seal()
        data = base64.b64decode(good["data"])
        for name, value in {
            "plain JSON": self.entry(),
            "an unknown secret": self.seal("a secret of somebody else"),
            "the id of another secret": dict(good, key=self.seal("an older one, still read")["key"]),
            "the value of another key": self.seal(key=self.key.replace(b"acme", b"globex")),
            "a bit that was turned": dict(good, data=base64.b64encode(data[:-1] + bytes([data[-1] ^ 1])).decode()),
            "data that is cut": dict(good, data=good["data"][:8]),
            "data that is not base64": dict(good, data="*" + good["data"]),
            "another version": self.seal(v=1),
            "a shorter salt": self.seal(salt=bytes(16)),
            "an unknown name": self.seal(more=1),
            "no salt": {name: value for name, value in good.items() if name != "salt"},
        }.items():
            with self.subTest(name):
                self.put(value)
                self.assertIsNone(self.find())

    def test_without_secrets_encrypted_values_are_refused(self):
        self.put(self.seal())
        self.cache = self.new_cache()
        self.assertIsNone(self.find())


class Flushes(Case):
    def test_scopes(self):
        flushing = {
            "all": dict(scope="all"),
            "its tenant": dict(scope="tenant", tenant="acme"),
            "it": dict(scope="member", tenant="acme", kc_id="alice"),
            "it by the application's id": dict(scope="member", tenant="acme", member_id="4711"),
            "its user": dict(scope="user", issuer=ISSUER, kc_id="alice"),
            "its user of any issuer": dict(scope="user", kc_id="alice"),
            "something unknown": dict(scope="galaxy"),
            "an event that is too large": dict(scope="tenant", tenant="globex", note="x" * 8192),
            "a tenant without a name": dict(scope="tenant"),
            "a member who is two": dict(scope="member", tenant="acme", kc_id="bob", member_id="1"),
            "a name that is too long": dict(scope="tenant", tenant="x" * 2049),
        }
        sparing = {
            "another tenant": dict(scope="tenant", tenant="globex"),
            "another user": dict(scope="member", tenant="acme", kc_id="bob"),
            "another tenant's": dict(scope="member", tenant="globex", kc_id="alice"),
            "another id": dict(scope="member", tenant="acme", member_id="4712"),
            "another issuer's": dict(scope="user", issuer="https://other.example.com", kc_id="alice"),
        }
        for name, fields in {**flushing, **sparing}.items():
            with self.subTest(name):
                at = self.redis.xinfo_stream(LOG)["last-generated-id"].decode()
                self.put(self.entry(pos=at))
                self.assertIsNotNone(self.find(), "before the flush")
                at = self.append(kind="flush", **fields).decode()
                self.assertEqual(self.find() is None, name in flushing, "after the flush")
                self.put(self.entry(pos=at))
                self.assertIsNotNone(self.find(), "loaded after the flush")

    def test_events_that_are_not_understood(self):
        self.put(self.entry())
        self.append(kind="of a later version", scope="all")
        self.assertIsNotNone(self.find())
        self.append(note="no kind")
        self.assertIsNone(self.find())

    def test_a_flush_before_the_log_was_first_read(self):
        self.append(kind="flush", scope="all")
        self.put(self.entry())
        self.assertIsNone(self.find())

    def test_a_flush_before_the_generation_is_one_of_the_generation_before(self):
        self.redis.delete(LOG)
        self.append("500-0", kind="flush", scope="all")
        self.append("1000-0", kind="generation", id=GEN)
        self.put(self.entry())
        self.assertIsNotNone(self.find())

    def test_a_flush_is_seen_though_it_is_a_thousand_events_ahead(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        pipeline = self.redis.pipeline(transaction=False)
        for number in range(2500):
            pipeline.xadd(LOG, {"kind": "flush", "scope": "member", "tenant": "acme", "kc_id": f"bob{number}"})
        pipeline.execute()
        self.assertIsNotNone(self.find())
        self.append(kind="flush", scope="member", tenant="acme", kc_id="alice")
        self.assertIsNone(self.find())

    def test_fences_are_bounded(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        self.addCleanup(setattr, flush_log, "MAX_FENCES", flush_log.MAX_FENCES)
        flush_log.MAX_FENCES = 2
        for name in ("one", "two", "three"):
            self.append(kind="flush", scope="tenant", tenant=name)
        self.assertIsNone(self.find(), "a flush was forgotten")
        self.assertEqual(len(self.cache.log._view.fences), 1)

    def test_a_new_generation_flushes_everybody(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        at = self.append(kind="generation", id="generation-two").decode()
        self.assertIsNone(self.find())
        self.put(self.entry(gen="generation-two"))
        self.assertIsNone(self.find(), "from before the generation")
        self.put(self.entry(gen="generation-two", pos=at))
        self.assertIsNotNone(self.find())

    def test_explicit_refresh(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        self.append(kind="flush", scope="all")
        self.tick -= 0.2  # so that find does not refresh by itself
        self.assertIsNotNone(self.find())
        self.cache.log.refresh()
        self.tick -= 0.2
        self.assertIsNone(self.find())


class Continuity(Case):
    def test_without_a_log_one_is_begun(self):
        self.redis.delete(LOG)
        self.put(self.entry())
        self.assertIsNone(self.find())
        ((_, event),) = self.redis.xrange(LOG)
        self.assertEqual(event[b"kind"], b"generation")
        self.assertRegex(event[b"id"], rb"^[0-9a-f]{32}$")

    def lose(self, how):
        """An entry that was good is not any more, even if all looks as it did."""
        last = self.append(kind="flush", scope="tenant", tenant="globex")
        self.put(self.entry(pos=last.decode()))
        self.assertIsNotNone(self.find())
        how(last)
        self.assertIsNone(self.find())
        events = self.redis.xrange(LOG)
        self.assertEqual(events[-1][1][b"kind"], b"generation")
        self.assertNotEqual(events[-1][1][b"id"], GEN.encode())
        self.put(self.entry(gen=events[-1][1][b"id"].decode(), pos=events[-1][0].decode()))
        self.assertIsNotNone(self.find(), "the new generation is followed")

    def test_an_event_of_a_lost_log_at_the_position_of_another(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        lost = flush_log.event_id({b"kind": b"flush", b"scope": b"tenant", b"tenant": b"globex", b"ref": b"lost"})
        at = self.append(kind="flush", scope="member", tenant="acme", kc_id="alice", ref="new").decode()
        self.put(self.entry(pos=at, event=lost))
        self.assertIsNone(self.find())
        self.put(self.entry(pos=at))
        self.assertIsNotNone(self.find())

    def test_no_generation_comes_back(self):
        self.append(kind="generation", id="generation-two")
        self.assertIsNone(self.find())  # both are read, and the second is lost
        self.redis.delete(LOG)
        self.append("1000-0", kind="generation", id=GEN)
        self.put(self.entry())
        self.assertIsNone(self.find())
        last = self.redis.xrevrange(LOG, count=1)[0][1]
        self.assertNotIn(last[b"id"], (GEN.encode(), b"generation-two"))

    def test_events_are_forgotten(self):
        self.addCleanup(setattr, flush_log, "MAX_EVENTS", flush_log.MAX_EVENTS)
        flush_log.MAX_EVENTS = 8
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        for number in range(20):
            last = self.append(kind="flush", scope="tenant", tenant="globex", ref=str(number)).decode()
        self.assertIsNone(self.find())
        self.put(self.entry(pos=last))
        self.assertIsNotNone(self.find())
        self.assertLessEqual(len(self.cache.log._view.events), 8)

    def test_the_log_is_gone(self):
        self.lose(lambda last: self.redis.delete(LOG))

    def test_the_last_event_is_gone(self):
        self.lose(lambda last: self.redis.xdel(LOG, last))

    def test_the_last_event_is_another(self):
        def replace(last):
            self.redis.delete(LOG)
            self.append("1000-0", kind="generation", id=GEN)
            self.append(last, kind="flush", scope="tenant", tenant="initech")
        self.lose(replace)

    def test_more_was_trimmed_than_was_read(self):
        def overtake(last):
            for _ in range(5):
                self.append(kind="flush", scope="tenant", tenant="globex")
            self.redis.xtrim(LOG, maxlen=2, approximate=False)
        self.lose(overtake)

    def test_another_node_began_the_new_generation(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        self.redis.delete(LOG)
        at = self.append(kind="generation", id="generation-two").decode()
        self.assertIsNone(self.find())
        self.put(self.entry(gen="generation-two", pos=at))
        self.assertIsNotNone(self.find())
        self.assertEqual(self.redis.xlen(LOG), 1)

    def test_a_log_that_is_no_stream_is_not_followed(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        self.redis.set(LOG, "x")
        self.tick += 10
        with self.assertRaises(Unavailable):
            self.find()

    def test_max_blind(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        self.redis.rename(LOG, "elsewhere")
        self.redis.set(LOG, "x")  # reading fails from now on
        self.tick += 4.5
        self.assertIsNotNone(self.find(), "for max_blind what is known is good enough")
        self.tick += 0.4
        with self.assertRaises(Unavailable):
            self.find()
        self.redis.rename("elsewhere", LOG)
        self.tick += 2
        self.assertIsNotNone(self.find(), "the log can be read again")

    def test_redis_is_down(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        self.process.kill()
        self.process.wait()
        with self.assertRaises(Unavailable):
            self.find()
        with self.assertRaises(Unavailable):
            self.new_cache().find("acme", ISSUER, "alice", sid="", issued_at=0)
        self.start()  # empty
        self.tick += 2
        self.assertIsNone(self.find())

    def test_threads_share_one(self):
        self.put(self.entry())
        results = []
        threads = [threading.Thread(target=lambda: results.append(self.find())) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len([member for member in results if member and member.id == "4711"]), 16)


class Logouts(Case):
    def logout(self, **fields):
        at = self.append(kind="logout", **{"issuer": ISSUER, "iat": 1_700_000_000, "until": 1_700_003_600, **fields})
        self.put(self.entry(pos=at.decode()))  # loaded after it: what is refused is the token

    def test_a_session(self):
        self.logout(sid="session")
        self.assertIsNone(self.find())
        self.assertIsNotNone(self.find(sid="another"))
        self.assertIsNotNone(self.find(sid=""))
        self.now += 3600
        self.put(self.entry())
        self.assertIsNotNone(self.find(), "the last token has expired by itself")

    def test_a_user(self):
        self.logout(sub="alice")
        self.assertIsNone(self.find(issued_at=1_700_000_000))
        self.assertIsNotNone(self.find(issued_at=1_700_000_001))
        self.put(self.entry(pos=POS))
        self.assertIsNone(self.find(issued_at=1_700_000_001), "it is a flush of the user, too")

    def test_a_session_with_its_user_refuses_the_session_alone(self):
        self.logout(sid="session", sub="alice")
        self.assertIsNone(self.find())
        self.assertIsNotNone(self.find(sid="another"))

    def test_others(self):
        self.logout(sid="session", issuer="https://other.example.com")
        self.logout(sub="bob")
        self.assertIsNotNone(self.find())

    def test_malformed(self):
        for name, fields in {
            "no issuer": dict(issuer="", sid="session"), "nobody": dict(), "an odd time": dict(sid="session", iat="1_0"),
            "no time": dict(sid="session", until=""), "too long": dict(sid="session", sub="x" * 513),
            "beyond the year 9999": dict(sid="session", until="253402300800"),
            "too large": dict(sid="session", note="x" * 8192),
            "issued in the future": dict(sid="session", iat=1_700_000_301),
        }.items():
            with self.subTest(name):
                self.logout(**fields)
                self.assertIsNotNone(self.find())

    def test_none_lasts_for_ever(self):
        self.logout(sid="session", until=253402300799)
        self.assertIsNone(self.find())
        self.now += flush_log.LOGOUT_LIFE
        self.put(self.entry())
        self.assertIsNotNone(self.find())

    def test_one_from_the_future_flushes_nobody(self):
        self.put(self.entry())
        self.assertIsNotNone(self.find())
        self.append(kind="logout", issuer=ISSUER, sub="alice", iat=1_700_000_301, until=1_700_003_600)
        self.assertIsNotNone(self.find())

    def test_it_outlives_the_generation(self):
        self.logout(sid="session")
        self.assertIsNone(self.find())
        self.redis.delete(LOG)
        at = self.append(kind="generation", id="generation-two").decode()
        self.put(self.entry(gen="generation-two", pos=at))
        self.assertIsNone(self.find())
        self.assertIsNotNone(self.find(sid="another"))

    def test_the_later_of_two_counts(self):
        self.logout(sub="alice", iat=1_700_000_000)
        self.logout(sub="alice", iat=1_600_000_000)
        self.assertIsNone(self.find(issued_at=1_699_999_999))

    def test_they_are_bounded(self):
        self.addCleanup(setattr, flush_log, "MAX_LOGOUTS", flush_log.MAX_LOGOUTS)
        flush_log.MAX_LOGOUTS = 10
        for number in range(30):
            self.logout(sid=f"s{number}", until=1_700_001_000 + number)
        self.assertIsNone(self.find(sid="s29"))
        self.assertLessEqual(len(self.cache.log._logouts), 10)


if __name__ == "__main__":
    unittest.main()
