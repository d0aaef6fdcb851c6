"""Connect to an object store; AWS credentials, regions and endpoints are found by boto3.

So everything works that works for the `aws` command: environment, profiles, SSO, assumed roles,
credential processes, and the roles of containers and machines, renewed while a run goes on.
"""

import logging
import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import S3Store, from_url

from spg_core.errors import StoreError

if TYPE_CHECKING:
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config


def connect(
    url: str, answer_seconds: float, whole_seconds: float
) -> tuple["ObjectStore", "ObjectStore"]:
    """Return obstore's view of `s3://`, `gs://` or `az://` with a bucket and a prefix, twice.

    Args:
        url: the store's.
        answer_seconds: in the first one, how long a server may be silent.
        whole_seconds: limit of a request as a whole. The second one has only this: it is for what
            is large, which is sent in full before the server says anything.

    Raises:
        StoreError: the URL, the AWS files or the credentials are wrong.
    """
    patient: ClientConfig = {
        "timeout": timedelta(seconds=whole_seconds),
        "connect_timeout": timedelta(seconds=min(10.0, answer_seconds)),
    }
    brisk: ClientConfig = {**patient, "read_timeout": timedelta(seconds=answer_seconds)}
    # Waiting is bounded: a request that took that long is not made again here.
    retry: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=answer_seconds)}
    try:
        if url.startswith("s3://"):
            open_with = _s3_opener(url, retry)
        else:
            open_with = partial(_open_other, url, retry)
        return open_with(brisk), open_with(patient)
    except (BaseError, OSError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise StoreError(f"cannot open the store {url}: {reason}") from error


def _open_other(url: str, retry: "RetryConfig", client: "ClientConfig") -> "ObjectStore":
    return from_url(url, client_options=client, retry_config=retry)


def _s3_opener(url: str, retry: "RetryConfig") -> "Callable[[ClientConfig], ObjectStore]":
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    config, provider = _from_aws(url)
    allow_http = config.get("endpoint", "").startswith("http://")
    return lambda client: S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={**client, "allow_http": allow_http},
        retry_config=retry,
        credential_provider=provider,
    )


def _from_aws(url: str) -> "tuple[S3Config, Boto3CredentialProvider | None]":
    """Return region, endpoint and credentials as the environment and the AWS files state them."""
    import boto3
    import botocore.session
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.exceptions import BotoCoreError, ClientError
    from obstore.auth.boto3 import Boto3CredentialProvider

    for name in ("botocore.credentials", "botocore.tokens"):
        logging.getLogger(name).addHandler(logging.NullHandler())  # no tracebacks on stderr
    try:
        core = botocore.session.get_session()
        profile = core.get_scoped_config()
        endpoint = ConfiguredEndpointProvider(core.full_config, profile, "s3").provide()
        # boto3 itself does not look at AWS_REGION, which other programs set.
        session = boto3.Session(botocore_session=core, region_name=os.environ.get("AWS_REGION"))
        found = None if _is_unsigned() else session.get_credentials()
        if found is not None:
            found.get_frozen_credentials()  # a login that ended is told now
    except (BotoCoreError, ClientError) as error:
        hint = "; run `aws sso login`" if "SSO" in str(error) else ""
        raise StoreError(f"cannot open the store {url}: {error}{hint}") from error
    if found is None and not _is_unsigned():
        raise StoreError(
            f"no credentials for {url}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or make a "
            "profile (aws configure, aws sso login) and name it in AWS_PROFILE"
        )
    config: S3Config = {"region": session.region_name or "us-east-1"}
    if endpoint:
        config["endpoint"] = endpoint
    return config, None if found is None else Boto3CredentialProvider(session)


def _is_unsigned() -> bool:
    """Tell whether a public bucket is asked, by the name that obstore reads, too."""
    return os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true", "yes", "on")
