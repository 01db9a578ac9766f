"""What the project had before: it verified tokens and looked members up by itself."""

import jwt
from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse

from .models import Member

keys = jwt.PyJWKClient(settings.KEYCLOAK_JWKS_URL)


class KeycloakMiddleware:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return HttpResponse("no token", status=401)
        try:
            claims = jwt.decode(
                token, keys.get_signing_key_from_jwt(token).key, algorithms=["RS256"],
                issuer=settings.KEYCLOAK_ISSUER, audience=settings.KEYCLOAK_AUDIENCE)
        except jwt.PyJWTError:
            return HttpResponse("bad token", status=401)
        request.tenant, request.roles = request.headers.get("X-Tenant-ID", ""), ()
        key = f"member:{request.tenant}:{claims['sub']}"
        request.user = cache.get(key)
        if request.user is None:
            request.user = Member.objects.filter(tenant=request.tenant, kc_id=claims["sub"], active=True).first()
            if request.user is None:
                return HttpResponse("not a member", status=403)
            cache.set(key, request.user, 60)
        response = self.get_response(request)
        response["X-Member-ID"] = str(request.user.pk)  # what `report_only` compares with
        return response
