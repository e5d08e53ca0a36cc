"""The operators that OpenVibe ships."""

from operators.catalog.company_intel import CompanyIntel
from operators.catalog.revenue_ops import RevenueOps

OPERATORS = [CompanyIntel, RevenueOps]
