"""Filters of our templates."""

from django import template

register = template.Library()
