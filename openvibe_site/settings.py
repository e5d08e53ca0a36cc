"""Django's settings, read from the environment (see `env.py` and docs/settings.md)."""

from __future__ import annotations

import os

from openvibe_site import database, env, home

OPENVIBE = env.read(os.environ)

home.Home(OPENVIBE.home).make()
SECRET_KEY = home.secret_key(OPENVIBE)
DEBUG = OPENVIBE.debug
ALLOWED_HOSTS = list(OPENVIBE.allowed_hosts)
BUS = OPENVIBE.bus
NATS_URL = OPENVIBE.nats_url or "nats://127.0.0.1:4222"
REDIS_URL = OPENVIBE.redis_url

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_celery_beat",
    "operators",
    "agents_ui",
    "openvibe_site",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "openvibe_site.urls"
ASGI_APPLICATION = "openvibe_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [env.ASSETS / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "agents_ui.context.navigation",
            ],
            "builtins": ["agents_ui.templatetags.openvibe"],
        },
    }
]

DATABASES = {"default": database.settings(OPENVIBE)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
LOGIN_URL = "signin"
LOGIN_REDIRECT_URL = "runs"
LOGOUT_REDIRECT_URL = "signin"

LANGUAGE_CODE = "en-us"
TIME_ZONE = OPENVIBE.time_zone
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [env.ASSETS / "static"]
# Files are served from where they lie: `make run` needs no collecting, and a change shows on reload.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
# A card's content, and the body around it.
DATA_UPLOAD_MAX_MEMORY_SIZE = 9 * 1024 * 1024

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "operators.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["operators.api.parsers.JSONParser"],
    "DEFAULT_PAGINATION_CLASS": "operators.api.pagination.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "operators.api.problems.answer",
    "PAGE_SIZE": 50,
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "OpenVibe",
    "DESCRIPTION": "Start AI operators, watch their runs, decide at their gates.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {
        "RunStatus": "operators.models.run.Run.Status",
        "WaitStatus": "operators.models.wait.Wait.Status",
        "WaitKind": "operators.models.wait.Wait.Kind",
        "AgentState": "operators.models.agent.Agent.State",
        "SessionStatus": "operators.services.sessions.WORDS",
    },
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"class": "openvibe_site.logs.Line", "format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        "json": {"class": "openvibe_site.logs.Line", "format": "%(message)s"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line"},
        "wire": {"class": "logging.StreamHandler", "formatter": "json"},
    },
    "root": {"handlers": ["console"], "level": OPENVIBE.log_level},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        # Only who asks for it by its own name gets a line for each message.
        "openvibe.wire": {
            "level": "DEBUG" if OPENVIBE.log_wire else "INFO",
            "handlers": ["wire"],
            "propagate": False,
        },
    },
}
