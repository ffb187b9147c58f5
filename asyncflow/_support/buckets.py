"""Buckets of S3 and of what speaks its protocol, opened with obstore.

Credentials, region and endpoint come from the usual variables, `AWS_ACCESS_KEY_ID` and so on, from
the machine's own role, or, if boto3 is installed, from wherever boto3 finds them: `~/.aws`, a
profile, single sign-on. Stores of runs (`s3_options`) and `S3` (`open_bucket`) find the same.

obstore works on threads of its own, which a fork does not copy. So a process that was forked after
its parent had used a bucket cannot use one; `open_bucket` refuses that, where obstore would hang.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Final

from asyncflow.errors import NotInstalledError, S3FailedError

_TRIES: Final = 7  # 0.1 s to 12 s apart: half a minute of refusals is survived
_RETRY_SECONDS: Final = 90
_SECONDS: Final = 60  # for one request; no request moves more than some MiB
_CONNECT_SECONDS: Final = 10

_FOUND_BY_OBSTORE: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_SKIP_SIGNATURE",
)


class _Owner:
    """The process whose obstore is at work; None before the first use."""

    pid: int | None = None


def load_obstore() -> Any:
    """The package obstore.

    Raises:
        NotInstalledError: It is not installed; the error names the command that installs it.
    """
    try:
        import obstore
    except ImportError as error:
        message = (
            "S3 needs the package obstore, which is not installed: "
            "pip install 'asyncflow-engine[s3]'"
        )
        raise NotInstalledError(message) from error
    return obstore


def open_bucket(name: str, **config: str) -> Any:
    """An `obstore.store.S3Store` for a bucket; `config` are options of obstore's `S3Store`.

    Raises:
        NotInstalledError: obstore is not installed.
        S3FailedError: This process was forked from one that has used a bucket already.
    """
    load_obstore()
    if _Owner.pid not in {None, os.getpid()}:
        raise S3FailedError(
            f"S3 cannot be used in this process, which was forked from process {_Owner.pid} after "
            "that had used S3: use S3 in one of the two, or get_many, which is parallel by itself"
        )
    _Owner.pid = os.getpid()
    surroundings = tuple((each, os.environ.get(each)) for each in _READ)
    return _open(name, surroundings, tuple(sorted(config.items())))


_READ: Final = (
    *_FOUND_BY_OBSTORE,
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_UNSIGNED_PAYLOAD",
)
"""Variables on which a bucket depends: a step may set one with `@environment` or `@secrets`."""


@lru_cache(maxsize=32)  # a bucket keeps its connections
def _open(
    name: str,
    surroundings: tuple[tuple[str, str | None], ...],
    config: tuple[tuple[str, str], ...],
) -> Any:
    from obstore.store import S3Store

    variables = {each: value for each, value in surroundings if value}
    options, client_options = _options_of(variables, dict(config))
    return S3Store(
        name,
        client_options={
            **client_options,
            "timeout": timedelta(seconds=_SECONDS),
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        },
        retry_config={
            "max_retries": _TRIES,
            "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
        },
        **options,
    )


def s3_options() -> tuple[dict[str, Any], dict[str, Any]]:
    """The options for a bucket of S3 that the variables do not tell obstore, and its client's."""
    return _options_of({each: value for each in _READ if (value := os.environ.get(each))}, {})


def _options_of(
    variables: dict[str, str], options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    if endpoint := variables.get("AWS_ENDPOINT_URL_S3"):
        options.setdefault("endpoint", endpoint)
    endpoint = (
        options.get("endpoint")
        or variables.get("AWS_ENDPOINT_URL")
        or variables.get("AWS_ENDPOINT")
        or ""
    )
    is_http = endpoint.startswith("http://")  # whoever writes such an endpoint means it
    if not is_http and "AWS_UNSIGNED_PAYLOAD" not in variables:
        options.setdefault("unsigned_payload", "true")  # TLS protects it; boto3 does the same
    if "access_key_id" not in options and not any(each in variables for each in _FOUND_BY_OBSTORE):
        _add_boto3(options)
    return options, {"allow_http": True} if is_http else {}


def _add_boto3(options: dict[str, Any]) -> None:
    """Use boto3's credentials and region, if it is installed and finds any."""
    if find_spec("boto3") is None:
        return
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.session.Session()
    if session.get_credentials() is not None:
        options["credential_provider"] = Boto3CredentialProvider(session)
