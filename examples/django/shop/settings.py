"""Settings of a small shop with tenants. What matters here is at the end."""

import os

SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY", "for development only")
DEBUG = False
ALLOWED_HOSTS = ["*"]  # Caddy decides which hosts there are
ROOT_URLCONF = "shop.urls"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["members"]

if "PGHOST" in os.environ:
    DATABASES = {"default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ.get("PGPORT", ""),
        "NAME": os.environ.get("PGDATABASE", "shop"),
        "USER": os.environ.get("PGUSER", ""),
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
    }}
else:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db"}}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    # Before the change this was "members.before.KeycloakMiddleware".
    "members.middleware.CaddyUserMiddleware",
]

# Who signs, for whom, and where the keys are: as `assertion` in the Caddyfile says. The
# keys are fetched from Caddy itself, on an address that only this machine or network has.
ASSERTION_ISSUER = os.environ.get("ASSERTION_ISSUER", "https://shop.example.com")
ASSERTION_AUDIENCE = os.environ.get("ASSERTION_AUDIENCE", "shop")
ASSERTION_JWKS_URL = os.environ.get(
    "ASSERTION_JWKS_URL", "https://shop.example.com/.well-known/user-assertion/jwks.json")

# Only members.before needs these.
KEYCLOAK_ISSUER = os.environ.get("KEYCLOAK_ISSUER", "https://sso.example.com/realms/main")
KEYCLOAK_JWKS_URL = KEYCLOAK_ISSUER + "/protocol/openid-connect/certs"
KEYCLOAK_AUDIENCE = "shop"
