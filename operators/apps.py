"""The Django application of the domain."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OperatorsConfig(AppConfig):
    """Loads the operators' definitions once the models are there."""

    name = "operators"
    verbose_name = "Operators"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Import the modules whose operators this process serves, and the checks of our settings."""
        from operators import checks, definitions  # noqa: F401  # models must be loaded first
        from operators.models import storage

        definitions.load()
        post_migrate.connect(storage.lay_out, sender=self)
