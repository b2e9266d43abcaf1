"""Settles a month of API calls: metering, tier pricing, vouchers, invoices, holds."""

__version__ = "0.1.0"
