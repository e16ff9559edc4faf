"""Read an API over HTTP: JSON, JSON lines or CSV, page by page; the records leave as the source wrote them.

All that a definition needs is here. How a stream is described is in `streams`, the ways from page to page in `pages`,
the forms of instants in `bounds`; `docs/rest.md` shows each at work.
"""

from connectors.http.auth import (
    ApiKeyHeader,
    ApiKeyQuery,
    BasicAuth,
    BearerToken,
    ClientAuthentication,
    OAuth2ClientCredentials,
)
from connectors.http.client import Limits, RetryPolicy
from connectors.rest.bodies import BodyFormat
from connectors.rest.bounds import Instants, Strftime
from connectors.rest.pages import InHeader, Keyset, LinkHeader, NextUrlInBody, Offset, PageNumber, TokenInBody
from connectors.rest.source import RestSource
from connectors.rest.streams import GraphQl, JsonBody, Parent, RestStream

__all__ = [
    "ApiKeyHeader",
    "ApiKeyQuery",
    "BasicAuth",
    "BearerToken",
    "BodyFormat",
    "ClientAuthentication",
    "GraphQl",
    "InHeader",
    "Instants",
    "JsonBody",
    "Keyset",
    "Limits",
    "LinkHeader",
    "NextUrlInBody",
    "OAuth2ClientCredentials",
    "Offset",
    "PageNumber",
    "Parent",
    "RestSource",
    "RestStream",
    "RetryPolicy",
    "Strftime",
    "TokenInBody",
]
