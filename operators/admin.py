"""Django admin: operators are configured here; runs, events and waits are read."""

from __future__ import annotations

from django import forms
from django.contrib import admin, messages
from django.utils.html import format_html
from django.utils.text import Truncator

from openvibe.protocol import actions
from operators.bridge import ingest
from operators.models import (
    Agent,
    ApiToken,
    ContextEntry,
    ContextRevision,
    DeadLetter,
    Effect,
    Emission,
    Errand,
    Event,
    InboxItem,
    Membership,
    Node,
    Notice,
    Operator,
    Process,
    Project,
    Run,
    Stint,
    Subscription,
    Wait,
    Workflow,
)
from operators.services import subscriptions

#: Of how many dead letters that are refused again a page tells why.
MOST_REASONS = 10

admin.site.site_header = "OpenVibe administration"
admin.site.site_title = "OpenVibe"
admin.site.index_title = "Configure and inspect"


class ReadOnly(admin.ModelAdmin):
    """Rows that the product writes; changing one by hand would make the timeline untrue."""

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        return False

    def has_delete_permission(self, request, obj=None):
        return False


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ["user"]


class ProjectForm(forms.ModelForm):
    """A word that names no tool would allow nothing, unnoticed."""

    def clean_ui_allowed(self):
        words = self.cleaned_data["ui_allowed"].replace(",", " ").split()
        if unknown := [word for word in words if word not in actions.TOOLS]:
            raise forms.ValidationError(f"{unknown[0]!r} is none of: {' '.join(actions.TOOLS)}")
        return " ".join(dict.fromkeys(words))


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin):
    form = ProjectForm
    list_display = ["id", "name", "max_running", "created_at"]
    inlines = [MembershipInline]


class WorkflowInline(admin.TabularInline):
    model = Workflow
    fields = ["slug", "trigger", "version", "retired"]
    readonly_fields = fields
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request, obj=None):
        return False


@admin.register(Operator)
class OperatorAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "project", "enabled", "registered_at"]
    list_editable = ["enabled"]
    list_filter = ["enabled", "project"]
    search_fields = ["name", "slug", "description"]
    fields = ["slug", "project", "name", "owner", "description", "enabled", "max_running"]
    fields += ["budget_run_usd", "budget_day_usd", "budget_month_usd", "registered_at"]
    # Name and owner come from the definition and would be overwritten at the next start.
    readonly_fields = ["slug", "project", "name", "owner", "registered_at"]
    inlines = [WorkflowInline]

    def has_add_permission(self, request):
        return False


class NodeInline(admin.TabularInline):
    model = Node
    fields = ["slug", "kind", "default_model", "model"]
    readonly_fields = ["slug", "kind", "default_model"]
    extra = 0
    can_delete = False

    def has_add_permission(self, request, obj=None):
        return False


@admin.register(Workflow)
class WorkflowAdmin(admin.ModelAdmin):
    """The model of each node is chosen here; an empty choice means the definition's."""

    list_display = ["slug", "operator", "trigger", "version", "retired"]
    list_filter = ["operator", "retired"]
    search_fields = ["slug", "name"]
    fields = ["slug", "operator", "name", "description", "trigger", "trigger_id", "version", "retired"]
    readonly_fields = fields
    inlines = [NodeInline]

    def has_add_permission(self, request):
        return False


class WaitInline(admin.TabularInline):
    model = Wait
    fields = [
        "id",
        "kind",
        "form",
        "node",
        "status",
        "rule",
        "approver",
        "assignee",
        "decision",
        "decider",
        "opened_at",
        "closed_at",
    ]
    readonly_fields = fields
    extra = 0
    can_delete = False
    show_change_link = True

    def has_add_permission(self, request, obj=None):
        return False


@admin.register(Run)
class RunAdmin(ReadOnly):
    list_display = [
        "page",
        "operator",
        "workflow",
        "status",
        "parent",
        "depth",
        "key",
        "created_at",
        "ended_at",
        "expires_at",
        "epoch",
    ]
    list_filter = ["status", "operator", "project", "depth"]
    search_fields = ["id", "=key", "=parent__id"]
    date_hierarchy = "created_at"
    list_select_related = ["operator", "workflow", "parent"]
    inlines = [WaitInline]

    @admin.display(description="run", ordering="id")
    def page(self, run):
        return run.id

    def view_on_site(self, run):
        return f"/agents/{run.id}/"


@admin.register(Event)
class EventAdmin(ReadOnly):
    list_display = ["channel", "seq", "kind", "node", "actor", "created_at"]
    list_filter = ["kind", "project"]
    search_fields = ["=channel", "=run__id"]
    ordering = ["-created_at"]
    show_full_result_count = False


@admin.register(Wait)
class WaitAdmin(ReadOnly):
    list_display = [
        "node",
        "run",
        "kind",
        "form",
        "status",
        "assignee",
        "decision",
        "decider",
        "opened_at",
        "deadline",
        "sent_at",
    ]
    list_filter = ["status", "kind", "form", "assignee"]
    search_fields = ["=id", "=run__id"]
    list_select_related = ["run"]


@admin.register(Effect)
class EffectAdmin(ReadOnly):
    """One left `attempted` while its run does not play is in doubt: its run asks people about it."""

    list_display = ["key", "node", "run", "state", "attempts", "attempted_at", "settled_at"]
    list_filter = ["state", "run__operator"]
    search_fields = ["=run__id", "key", "node"]
    date_hierarchy = "attempted_at"
    list_select_related = ["run"]
    ordering = ["-attempted_at"]


@admin.register(Emission)
class EmissionAdmin(ReadOnly):
    list_display = ["name", "run", "project", "emitted_at", "delivered_at", "published_at"]
    list_filter = [
        "project",
        ("delivered_at", admin.EmptyFieldListFilter),
        ("published_at", admin.EmptyFieldListFilter),
        "name",
    ]
    search_fields = ["=id", "=run__id", "name"]
    date_hierarchy = "emitted_at"
    list_select_related = ["run", "project"]
    ordering = ["-emitted_at"]


@admin.register(InboxItem)
class InboxItemAdmin(ReadOnly):
    list_display = ["type", "correlation_id", "run_id", "status", "reason", "attempts", "received_at", "changed_at"]
    list_filter = ["status", "type", "project"]
    search_fields = ["=correlation_id", "=run_id", "reason"]
    date_hierarchy = "received_at"


@admin.register(Errand)
class ErrandAdmin(ReadOnly):
    list_display = ["tool", "id", "project", "status", "outcome", "created_at", "closed_at", "told_at"]
    list_filter = ["status", "outcome", "tool", "project"]
    search_fields = ["=id", "=wait_id"]
    date_hierarchy = "created_at"


class RevisionInline(admin.TabularInline):
    model = ContextRevision
    fields = ["revision", "value", "deleted", "author", "created_at"]
    readonly_fields = fields
    extra = 0
    can_delete = False

    def has_add_permission(self, request, obj=None):
        return False


@admin.register(ContextEntry)
class ContextEntryAdmin(ReadOnly):
    list_display = ["key", "bucket", "project", "revision", "deleted", "author", "updated_at"]
    list_filter = ["bucket", "deleted", "project"]
    search_fields = ["key", "author"]
    list_select_related = ["project"]
    inlines = [RevisionInline]


@admin.register(Subscription)
class SubscriptionAdmin(ReadOnly):
    list_display = ["id", "project", "kinds", "operator", "enabled", "disabled_reason", "failures", "created_at"]
    list_filter = ["enabled", "project"]
    list_select_related = ["project", "operator"]
    exclude = ["sealed_secret"]
    actions = ["enable"]

    def has_enable_permission(self, request):
        return request.user.is_superuser

    @admin.action(description="Switch on again, from now on", permissions=["enable"])
    def enable(self, request, found):
        for item in found:
            subscriptions.enable(item)
        self.message_user(request, f"On now: {len(found)}.", messages.SUCCESS)


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnly):
    list_display = ["subject", "reason", "received_at", "replayed_at"]
    list_filter = [("replayed_at", admin.EmptyFieldListFilter)]
    actions = ["replay"]
    search_fields = ["subject", "reason"]
    fields = ["subject", "reason", "headers", "content", "received_at", "replayed_at"]
    readonly_fields = fields

    def has_replay_permission(self, request):
        return request.user.is_superuser

    @admin.action(description="Replay: read the message again", permissions=["replay"])
    def replay(self, request, letters):
        outcomes = [(letter, ingest.replay(letter)) for letter in letters.order_by("received_at", "pk")]
        refused = [f"{letter.subject}: {reason}" for letter, reason in outcomes if reason]
        self.message_user(request, f"Read now: {len(outcomes) - len(refused)}.", messages.SUCCESS)
        if refused:
            told = "; ".join(Truncator(reason).chars(300) for reason in refused[:MOST_REASONS])
            self.message_user(request, f"Refused again: {len(refused)}. {told}", messages.WARNING)

    @admin.display(description="body")
    def content(self, letter):
        return format_html("<pre>{}</pre>", letter.text)


@admin.register(Agent)
class AgentAdmin(ReadOnly):
    list_display = ["name", "project", "role", "state", "health", "heard_at"]
    list_filter = ["project", "role"]
    search_fields = ["name"]
    list_select_related = ["project"]


@admin.register(Stint)
class StintAdmin(ReadOnly):
    list_display = ["agent", "run", "role", "started_at", "stopped_at", "reason"]
    search_fields = ["=run__id", "agent__name"]
    list_select_related = ["agent"]


@admin.register(Notice)
class NoticeAdmin(ReadOnly):
    list_display = ["type", "subject", "run", "written_at", "sent_at"]
    list_filter = [("sent_at", admin.EmptyFieldListFilter), "type"]
    search_fields = ["=run__id", "=message_id"]
    ordering = ["-written_at"]


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly):
    list_display = ["name", "project", "user", "created_at"]
    exclude = ["key_sha256"]

    def has_delete_permission(self, request, obj=None):
        return request.user.is_superuser


@admin.register(Process)
class ProcessAdmin(ReadOnly):
    list_display = ["id", "kind", "bus_connected", "seen_at"]
