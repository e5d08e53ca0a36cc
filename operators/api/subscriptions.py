"""Who is told of events over HTTP. Addresses may hold secrets, so only those who may change them see them."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Q
from django.http import Http404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from operators.api import scope
from operators.api.sizes import keepable
from operators.models import Delivery, Project, Subscription
from operators.services import endpoints, subscriptions
from operators.services.masking import MASK

RECENT = 50


class SubscribeBody(serializers.Serializer[Any]):
    """Who is to be told of what."""

    url = serializers.CharField(max_length=endpoints.LONGEST)
    kinds = serializers.ListField(
        child=serializers.CharField(max_length=80), min_length=1, help_text="Such as `run.completed`, `run.*`, `*`"
    )
    operator = serializers.CharField(required=False, max_length=64, help_text="Only of runs of this operator")
    secret = serializers.CharField(
        required=False, min_length=16, max_length=200, help_text="Key of the signatures; made if left out"
    )


class SubscriptionView(serializers.ModelSerializer[Subscription]):
    """A subscription. `failures` counts failed tries in a row."""

    kinds = serializers.ListField(child=serializers.CharField())
    operator = serializers.CharField(source="operator.slug", default=None, allow_null=True)
    pending = serializers.IntegerField(default=0)
    secret = serializers.SerializerMethodField(help_text="Told at the start only; then `•••`")

    class Meta:
        model = Subscription
        fields: tuple[str, ...] = (
            "id", "url", "kinds", "operator", "created_at", "enabled", "disabled_reason", "failures", "pending",
            "secret",
        )  # fmt: skip
        read_only_fields = fields

    def get_secret(self, found: Subscription) -> str:
        """Return what stands in its place."""
        return MASK


class NewSubscription(SubscriptionView):
    """A subscription with its secret, which is told this once."""

    def get_secret(self, found: Subscription) -> str:
        """Return the secret itself."""
        return found.secret


class ChangeBody(serializers.Serializer[Any]):
    """Whether it is told of events."""

    enabled = serializers.BooleanField()


class SubscriptionList(serializers.Serializer[Any]):
    """The subscriptions of a project."""

    subscriptions = SubscriptionView(many=True)


class DeliveryView(serializers.ModelSerializer[Delivery]):
    """One event on its way."""

    id = serializers.CharField(source="body.id")

    class Meta:
        model = Delivery
        fields = ("id", "kind", "status", "attempts", "next_at", "error", "created_at", "delivered_at")
        read_only_fields = fields


class SubscriptionDetail(SubscriptionView):
    """A subscription with its newest deliveries."""

    deliveries = serializers.SerializerMethodField()

    class Meta(SubscriptionView.Meta):
        fields = (*SubscriptionView.Meta.fields, "deliveries")

    def get_deliveries(self, found: Subscription) -> list[dict[str, Any]]:
        """Return the newest ones first."""
        return list(DeliveryView(found.deliveries.all()[:RECENT], many=True).data)


class Subscribe(APIView):
    """The door by which programs ask to be told."""

    @extend_schema(request=SubscribeBody, responses={201: NewSubscription}, operation_id="subscribe")
    def post(self, request: Request) -> Response:
        """Have events posted to an address, each signed, from now on."""
        project = scope.project(request, operable=True)
        body = SubscribeBody(data=request.data)
        body.is_valid(raise_exception=True)
        given = body.validated_data
        found = subscriptions.subscribe(
            project,
            url=given["url"],
            wanted=given["kinds"],
            operator=scope.operator(request, given["operator"], operable=True) if "operator" in given else None,
            secret=keepable(given.get("secret", ""), field="secret"),
            actor=scope.caller(request),
        )
        place = {"Location": f"/v1/events/subscriptions/{found.id}"}
        return Response(NewSubscription(found).data, status=201, headers=place)


class Subscriptions(APIView):
    """The subscriptions of a project."""

    @extend_schema(responses=SubscriptionList, operation_id="list_subscriptions")
    def get(self, request: Request) -> Response:
        """List them, oldest first."""
        rows = _rows(scope.project(request, operable=True))
        return Response(SubscriptionList({"subscriptions": rows}).data)


class SubscriptionPage(APIView):
    """One subscription."""

    @extend_schema(responses=SubscriptionDetail, operation_id="read_subscription")
    def get(self, request: Request, subscription_id: str) -> Response:
        """Tell it with its newest deliveries."""
        return Response(SubscriptionDetail(_found(request, subscription_id)).data)

    @extend_schema(request=ChangeBody, responses=SubscriptionDetail, operation_id="change_subscription")
    def patch(self, request: Request, subscription_id: str) -> Response:
        """Switch it on again, from now on, or off."""
        found = _found(request, subscription_id)
        body = ChangeBody(data=request.data)
        body.is_valid(raise_exception=True)
        if body.validated_data["enabled"]:
            subscriptions.enable(found)
        else:
            subscriptions.disable(found, actor=scope.caller(request))
        return Response(SubscriptionDetail(_found(request, subscription_id)).data)

    @extend_schema(responses={204: None}, operation_id="delete_subscription")
    def delete(self, request: Request, subscription_id: str) -> Response:
        """End it. What is on its way may still arrive."""
        _found(request, subscription_id).delete()
        return Response(status=204)


def _rows(project: Project) -> Any:
    waiting = Count("deliveries", filter=Q(deliveries__status=Delivery.Status.PENDING))
    rows = Subscription.objects.filter(project=project).select_related("operator")
    return rows.annotate(pending=waiting).order_by("created_at", "id")


def _found(request: Request, subscription_id: str) -> Subscription:
    found: Subscription | None = _rows(scope.project(request, operable=True)).filter(id=subscription_id).first()
    if found is None:
        raise Http404(f"There is no subscription {subscription_id!r}")
    return found
