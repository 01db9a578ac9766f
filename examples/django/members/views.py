from django.http import HttpResponse, JsonResponse


def whoami(request):
    """Answers without a query: all of this is in the assertion."""
    user = request.user
    if not user.is_authenticated:
        return JsonResponse({"member": None})
    return JsonResponse({"member": user.pk, "kc_id": user.kc_id, "tenant": request.tenant, "roles": request.roles})


def profile(request):
    """Uses a field that is only in the database: one query, when it is used."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    return JsonResponse({"name": request.user.name})
