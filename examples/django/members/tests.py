"""python manage.py test. With PGHOST in the environment on PostgreSQL, else on SQLite."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from unittest import mock

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.conf import settings
from django.test import TestCase, override_settings
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from members import assertion, before
from members.models import Member

ED, EC, RSA = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)


class KeyServer(HTTPServer):
    """Serves a key set, as Caddy does, and counts how often it is fetched."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), KeyHandler)
        self.fetched, self.status, self.keys = 0, 200, {
            "ed": json.loads(OKPAlgorithm.to_jwk(ED.public_key())) | {"alg": "EdDSA", "use": "sig"},
            "ec": json.loads(ECAlgorithm.to_jwk(EC.public_key())) | {"alg": "ES256", "use": "sig"},
            "rsa": json.loads(RSAAlgorithm.to_jwk(RSA.public_key())) | {"alg": "RS256", "use": "sig"},
        }
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/jwks.json"


class KeyHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.fetched += 1
        body = json.dumps({"keys": [dict(key, kid=kid) for kid, key in self.server.keys.items()]}).encode()
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Case(TestCase):
    def setUp(self):
        self.server = KeyServer()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.now = 1000.0
        clock = mock.patch("members.assertion.time.monotonic", lambda: self.now)
        clock.start()
        self.addCleanup(clock.stop)
        keys = mock.patch("members.assertion.keys", assertion.Keys(self.server.url))
        keys.start()
        self.addCleanup(keys.stop)
        self.member = Member.objects.create(kc_id="8d0c", tenant="acme", name="Alice")

    def sign(self, key=ED, kid="ed", alg="EdDSA", typ="kca-assertion+jwt", **changes):
        now = int(time.time())
        claims = {
            "iss": settings.ASSERTION_ISSUER, "aud": settings.ASSERTION_AUDIENCE, "sub": "8d0c", "tenant": "acme",
            "member_id": str(self.member.pk), "roles": ["editor"], "iat": now, "exp": now + 60, **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key, alg, headers={"typ": typ, **({"kid": kid} if kid else {})})

    def get(self, text, path="/whoami", **headers):
        if text is not None:
            headers["X-User-Assertion"] = text
        return self.client.get(path, headers=headers)


class CaddyUserTest(Case):
    def test_the_user_is_the_asserted_member_without_a_query(self):
        with self.assertNumQueries(0):
            for text in (self.sign(), self.sign(EC, "ec", "ES256"), self.sign(aud=["mail", "shop"])):
                self.assertEqual(self.get(text).json(), {
                    "member": self.member.pk, "kc_id": "8d0c", "tenant": "acme", "roles": ["editor"]})

    def test_other_fields_are_loaded_when_they_are_used(self):
        with self.assertNumQueries(1):
            self.assertEqual(self.get(self.sign(), "/profile").json(), {"name": "Alice"})

    def test_without_an_assertion_nobody_is_logged_in(self):
        self.assertEqual(self.get(None).json(), {"member": None})
        self.assertEqual(self.get(None, "/profile").status_code, 401)

    def test_headers_that_are_not_signed_are_not_believed(self):
        response = self.get(None, **{"X-User-ID": "8d0c", "X-Member-ID": str(self.member.pk), "X-Tenant-ID": "acme",
                                     "Remote-User": "8d0c"})
        self.assertEqual(response.json(), {"member": None})

    def test_what_is_refused(self):
        now = int(time.time())
        good = self.sign()
        head, claims, signature = good.split(".")
        for name, text in {
            "another issuer": self.sign(iss="https://evil.example.com"),
            "another audience": self.sign(aud="mail"),
            "over": self.sign(iat=now - 100, exp=now - 11),
            "from the future": self.sign(iat=now + 30, exp=now + 90),
            "an access token": self.sign(typ="JWT"),
            "no type": self.sign(typ=None),
            "an unknown key": self.sign(kid="nobody's"),
            "no key": self.sign(kid=None),
            "another key": self.sign(ed25519.Ed25519PrivateKey.generate()),
            "the key of another algorithm": self.sign(EC, "ed", "ES256"),
            "RSA, though its key is published": self.sign(RSA, "rsa", "RS256"),
            "a shared secret": self.sign("x" * 32, "ed", "HS256"),
            "no signature": self.sign(None, "ed", "none"),
            "a signature that is cut": good[:-4],
            "other claims": ".".join((head, self.sign(sub="evil").split(".")[1], signature)),
            "two": good + "," + good,
            "rubbish": "rubbish",
            "empty": "",
            **{"no " + claim: self.sign(**{claim: None}) for claim in assertion.CLAIMS},
        }.items():
            with self.subTest(name):
                assertion.keys._asked = 1000.0 if assertion.keys._keys else float("-inf")
                self.assertEqual(self.get(text).status_code, 401)
        self.assertEqual(self.get(good).status_code, 200)

    def test_clocks_may_differ_a_little(self):
        now = int(time.time())
        self.assertEqual(self.get(self.sign(iat=now - 60, exp=now - 5)).status_code, 200)
        self.assertEqual(self.get(self.sign(iat=now + 5, exp=now + 65)).status_code, 200)


class KeysTest(Case):
    def test_they_are_fetched_once(self):
        for _ in range(5):
            self.assertEqual(self.get(self.sign()).status_code, 200)
        self.assertEqual(self.server.fetched, 1)

    def test_a_new_key_is_found_and_unknown_ones_cause_no_flood(self):
        self.assertEqual(self.get(self.sign()).status_code, 200)
        new = ed25519.Ed25519PrivateKey.generate()
        self.server.keys = {"new": json.loads(OKPAlgorithm.to_jwk(new.public_key())) | {"alg": "EdDSA", "use": "sig"}}
        self.now += 6
        self.assertEqual(self.get(self.sign(new, "new")).status_code, 200)
        for number in range(20):
            self.now += 0.1
            self.assertEqual(self.get(self.sign(kid=str(number))).status_code, 401)
        self.assertEqual(self.server.fetched, 2)
        self.assertEqual(self.get(self.sign()).status_code, 401, "the old key was withdrawn")

    def test_a_withdrawn_key_is_dropped_in_time(self):
        self.assertEqual(self.get(self.sign()).status_code, 200)
        del self.server.keys["ed"]
        self.now += assertion.REFRESH + 1
        self.assertEqual(self.get(self.sign()).status_code, 401)

    def test_while_they_cannot_be_fetched(self):
        self.server.status = 500
        self.assertEqual(self.get(self.sign()).status_code, 503)
        self.server.status = 200
        self.now += 6
        self.assertEqual(self.get(self.sign()).status_code, 200)
        self.server.status = 500
        self.now += assertion.REFRESH + 1
        self.assertEqual(self.get(self.sign()).status_code, 200, "those it has will do for a while")
        self.now += assertion.FORGET
        self.assertEqual(self.get(self.sign()).status_code, 503)


@override_settings(MIDDLEWARE=["members.before.KeycloakMiddleware"])
class BeforeTest(Case):
    """What the project did before gives the same answer as what it does now."""

    def test_the_same_member(self):
        token = jwt.encode({"iss": settings.KEYCLOAK_ISSUER, "aud": settings.KEYCLOAK_AUDIENCE, "sub": "8d0c",
                            "exp": int(time.time()) + 60}, RSA, "RS256", headers={"kid": "rsa"})
        with mock.patch.object(before, "keys", jwt.PyJWKClient(self.server.url)):
            old = self.get(None, **{"Authorization": "Bearer " + token, "X-Tenant-ID": "acme"})
            self.assertEqual(self.get(None, **{"Authorization": "Bearer x", "X-Tenant-ID": "acme"}).status_code, 401)
            self.assertEqual(
                self.get(None, **{"Authorization": "Bearer " + token, "X-Tenant-ID": "globex"}).status_code, 403)
        with override_settings(MIDDLEWARE=["members.middleware.CaddyUserMiddleware"]):
            new = self.client_class().get("/whoami", headers={"X-User-Assertion": self.sign()})
        self.assertEqual(old["X-Member-ID"], str(new.json()["member"]))
        self.assertEqual(old.json()["tenant"], new.json()["tenant"])
