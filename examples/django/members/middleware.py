"""The user comes from Caddy. This takes the place of token verification and look-up."""

from django.http import HttpResponse

from .assertion import InvalidAssertion, KeysUnavailable, verify
from .models import Member, Nobody

HEADER = "X-User-Assertion"


class CaddyUserMiddleware:
    """Sets request.user, request.tenant and request.roles.

    Works like RemoteUserMiddleware, but believes no header that Caddy has not signed. No
    query is made: the user is a Member whose other fields are loaded when they are used."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        request.user, request.tenant, request.roles = Nobody(), None, ()
        assertion = request.headers.get(HEADER)
        if assertion is not None:
            try:
                claims = verify(assertion)
                member_id = Member._meta.pk.to_python(claims["member_id"])
            except KeysUnavailable:
                return HttpResponse("cannot verify who you are", status=503)
            except InvalidAssertion:
                return HttpResponse("not an assertion of ours", status=401)
            request.tenant, request.roles = claims["tenant"], tuple(claims["roles"])
            request.user = Member.from_db(
                "default", ["id", "kc_id", "tenant"], [member_id, claims["sub"], claims["tenant"]])
        return self.get_response(request)
