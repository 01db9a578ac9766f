from django.urls import path

from members import views

urlpatterns = [path("whoami", views.whoami), path("profile", views.profile)]
