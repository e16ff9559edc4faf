"""Secrets that are kept in AWS Secrets Manager: a variable then holds where, not what.

`aws-secretsmanager://prod/headwater/loader` is the secret of that name (or ARN), `…#password` one value of the JSON
object that it holds. It is asked for when it is needed and remembered for a minute, so that a rotation reaches running
processes. Who may read it is AWS's matter: the machine's own role, or the usual `AWS_*` variables.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from connectors.errors import ConfigurationError, SecretsUnavailableError

SCHEME = "aws-secretsmanager://"
_REMEMBERED_SECONDS = 60.0
_CONNECT_SECONDS, _READ_SECONDS, _ATTEMPTS = 3, 5, 3
_FORM = f"{SCHEME}name, or {SCHEME}name#key for one value of a JSON object"
_MEANINGS = {
    "ResourceNotFoundException": ("there is none", "Make it, or correct the name and the region (AWS_REGION)."),
    "AccessDeniedException": (
        "this process may not read it",
        "Allow secretsmanager:GetSecretValue on it (and kms:Decrypt on its key, if that is your own).",
    ),
    "DecryptionFailure": ("AWS cannot decrypt it", "Allow kms:Decrypt on its key."),
    "InvalidRequestException": ("it is being deleted", "Restore it, or name another one."),
    "UnrecognizedClientException": ("AWS does not know these credentials", "Correct AWS_ACCESS_KEY_ID and its secret."),
    "InvalidSignatureException": ("AWS refuses these credentials", "Correct AWS_ACCESS_KEY_ID and its secret."),
    "ExpiredTokenException": ("the session of these credentials is over", "Log in to AWS again."),
}


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is kept."""

    name: str
    key: str | None
    asked_for: str
    """The variable or block that names it."""

    def __str__(self) -> str:
        value = f"the value `{self.key}` of the secret" if self.key else "the secret"
        return f"{value} `{self.name}` of AWS Secrets Manager, which {self.asked_for} names"


def is_reference(text: str) -> bool:
    """Whether a value says where a secret is kept instead of being one."""
    return text.startswith(SCHEME)


def parse_reference(text: str, asked_for: str) -> Reference:
    """The reference that a text is.

    Raises:
        ConfigurationError: it is none; it is not repeated, for it may be a secret by mistake.
    """
    name, hash_, key = text.removeprefix(SCHEME).partition("#")
    if not is_reference(text) or not name or (hash_ and not key) or not text.isprintable():
        raise ConfigurationError(f"{asked_for} does not say which secret is meant.", remedy=f"Write {_FORM}.")
    return Reference(name, key or None, asked_for)


def read_secret(reference: Reference) -> str:
    """What is kept there, now or a minute ago.

    Raises:
        ConfigurationError: there is no such secret or value, or this process may not read it.
        SecretsUnavailableError: AWS does not answer, or says "not now".
    """
    with _lock:  # who comes second need not ask
        found, until = _remembered.get(reference.name, ("", 0.0))
        if time.monotonic() >= until:
            found = _ask(reference)
            _remembered[reference.name] = (found, time.monotonic() + _REMEMBERED_SECONDS)
    return found if reference.key is None else _value(found, reference)


def forget_secrets() -> None:
    """Ask for each anew when it is needed next."""
    with _lock:
        _remembered.clear()


_remembered: dict[str, tuple[str, float]] = {}
_lock = threading.Lock()


def _ask(reference: Reference) -> str:
    # 0.4 s of CPU, for those that keep secrets there.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

    # Its own debug log has every answer, whole.
    if (told := logging.getLogger("botocore")).getEffectiveLevel() < logging.INFO:
        told.setLevel(logging.INFO)
    try:
        client = boto3.session.Session(region_name=os.environ.get("AWS_REGION")).client(
            "secretsmanager",
            config=Config(
                connect_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, retries={"total_max_attempts": _ATTEMPTS}
            ),
        )
        answer: dict[str, Any] = client.get_secret_value(SecretId=reference.name)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if code not in _MEANINGS:
            raise SecretsUnavailableError(
                f"{_begun(reference)} cannot be read: AWS says {code or 'no reason'}.",
                remedy="It is asked for again with the next attempt; if it lasts, look at AWS's own log (CloudTrail).",
            ) from None
        meaning, remedy = _MEANINGS[code]
        raise ConfigurationError(f"{_begun(reference)} cannot be read: {meaning}.", remedy=remedy) from None
    except NoCredentialsError:
        raise ConfigurationError(
            f"{_begun(reference)} cannot be read: there are no AWS credentials.",
            remedy="Give the machine a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        ) from None
    except NoRegionError:
        raise ConfigurationError(
            f"{_begun(reference)} cannot be read: no region is set.", remedy="Set AWS_REGION."
        ) from None
    except ValueError:
        raise ConfigurationError(
            f"{_begun(reference)} cannot be read: the address of AWS is none.",
            remedy="Correct AWS_ENDPOINT_URL_SECRETS_MANAGER, or AWS_ENDPOINT_URL.",
        ) from None
    except BotoCoreError as error:
        raise SecretsUnavailableError(
            f"{_begun(reference)} cannot be read: {type(error).__name__}.",
            remedy="Check the way from this machine to AWS (region, proxy, VPC endpoint).",
        ) from None
    if "SecretString" not in answer:
        raise ConfigurationError(f"{_begun(reference)} is binary.", remedy="Keep it as text.")
    return str(answer["SecretString"])


def _value(found: str, reference: Reference) -> str:
    try:
        values = json.loads(found)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"{_begun(replace(reference, key=None))} is no JSON object.",
            remedy=f"Leave out #{reference.key}, or keep an object there.",
        )
    value = values.get(str(reference.key))
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        known = ", ".join(f"`{name}`" for name in sorted(values)) or "none"
        raise ConfigurationError(
            f"There is no {str(reference).removeprefix('the ')}.", remedy=f"It has these: {known}."
        )
    return str(value)


def _begun(reference: Reference) -> str:
    text = str(reference)
    return f"{text[0].upper()}{text[1:]},"
