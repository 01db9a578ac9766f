"""Verifies the assertions that Caddy signs (keycloak_cache_auth, `assertion`)."""

import threading
import time

import jwt
from django.conf import settings

ALGORITHMS = ("EdDSA", "ES256")
TYPE = "kca-assertion+jwt"
CLAIMS = ["iss", "aud", "sub", "tenant", "member_id", "roles", "iat", "exp"]
LEEWAY = 10  # seconds by which clocks may differ
REFRESH = 300  # seconds after which the keys are fetched again
FORGET = 3600  # seconds for which they are good while they cannot be fetched
COOLDOWN = 5  # seconds between two fetches, whatever comes in


class InvalidAssertion(Exception):
    """It is not by our Caddy, not for us, or over."""


class KeysUnavailable(Exception):
    """Caddy's keys cannot be had, so nothing can be verified."""


class Keys:
    def __init__(self, url):
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=2)
        self._keys, self._lock, self._asked, self._known = {}, threading.Lock(), float("-inf"), 0.0

    def get(self, kid):
        with self._lock:
            now = time.monotonic()
            if now - self._asked > (REFRESH if kid in self._keys else COOLDOWN):
                self._asked = now
                try:
                    self._keys = {key.key_id: key for key in self._client.get_signing_keys()}
                    self._known = now
                except jwt.PyJWTError:
                    pass  # those we have will do for a while
            if not self._keys or now - self._known > FORGET:
                raise KeysUnavailable
            return self._keys.get(kid)


keys = Keys(settings.ASSERTION_JWKS_URL)


def verify(assertion):
    """The claims of an assertion. Raises InvalidAssertion or KeysUnavailable."""
    try:
        header = jwt.get_unverified_header(assertion)
        key = keys.get(header.get("kid"))
        if key is None or header.get("typ") != TYPE or header.get("alg") not in ALGORITHMS:
            raise InvalidAssertion
        return jwt.decode(
            assertion, key.key, algorithms=[key.algorithm_name], issuer=settings.ASSERTION_ISSUER,
            audience=settings.ASSERTION_AUDIENCE, leeway=LEEWAY, options={"require": CLAIMS})
    except jwt.PyJWTError as error:
        raise InvalidAssertion from error
