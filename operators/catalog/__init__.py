"""The operators that OpenVibe ships."""

from operators.catalog.company_intel import CompanyIntel
from operators.catalog.content_engine import ContentEngine
from operators.catalog.customer_success import CustomerSuccess
from operators.catalog.market_intel import MarketIntel
from operators.catalog.revenue_ops import RevenueOps

OPERATORS = [CompanyIntel, RevenueOps, ContentEngine, CustomerSuccess, MarketIntel]
