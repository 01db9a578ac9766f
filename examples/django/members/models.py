from django.db import models


class Member(models.Model):
    """One user in one tenant. Caddy's resolver reads this table: see docs/resolvers.md."""

    kc_id = models.CharField(max_length=255)
    tenant = models.CharField(max_length=63)
    active = models.BooleanField(default=True)
    name = models.CharField(max_length=255, blank=True)

    # What Django and its libraries ask a user for.
    is_anonymous = False
    is_authenticated = True

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "kc_id"], name="one_member_per_user_and_tenant")]


class Nobody:
    """The user of a request that has none. Like Django's AnonymousUser, without its tables."""

    pk = id = None
    is_anonymous = True
    is_authenticated = False
