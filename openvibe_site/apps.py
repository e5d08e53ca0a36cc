"""The site as a Django application: it makes Celery's application the one that every process rings."""

from django.apps import AppConfig


class SiteConfig(AppConfig):
    """Loads the Celery application with Django, in web, worker, bridge and commands alike."""

    name = "openvibe_site"

    def ready(self) -> None:
        """Import it."""
        from openvibe_site import celery  # noqa: F401  # settings must be there first
