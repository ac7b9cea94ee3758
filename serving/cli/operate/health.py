"""`shelfwise health`: the health of a running server, as a line and an exit code."""

from __future__ import annotations

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from conf.errors import InputError, closest
from conf.operating import HealthConfig
from serving.cli.connection import credentials_of, failure_message
from serving.observability.health import HEALTH_NAMES
from shelfwise_client import ServiceError
from shelfwise_client.channel import call_metadata


def health(config: HealthConfig, console: Console) -> None:
    """Print the status of a health service and end with exit code 0 if it is SERVING, else with 1.

    Raises:
        InputError: no server answers, or it has no health service of this name; the exit code is then 2.
        SystemExit: with code 1 for any other status.
    """
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(_status(config))
    name = f" {config.service}" if config.service else ""
    console.print(f"{config.address}{name} {status}", soft_wrap=True, markup=False, highlight=False)
    if status != "SERVING":
        sys.exit(1)


def _status(config: HealthConfig) -> int:
    """Ask once; the channel does not retry, because a probe reports what is now."""
    credentials = credentials_of(config.tls)
    channel = (
        grpc.insecure_channel(config.address)
        if credentials is None
        else grpc.secure_channel(config.address, credentials)
    )
    metadata = call_metadata(os.environ.get(config.api_key_env) or None)
    request = health_pb2.HealthCheckRequest(service=config.service)
    with channel:
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            return int(stub.Check(request, timeout=config.timeout, metadata=metadata).status)
        except grpc.RpcError as error:
            raise _failure(ServiceError.of(error), config) from error


def _failure(error: ServiceError, config: HealthConfig) -> InputError:
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return InputError(f"{config.address} did not answer within {config.timeout:g} s; set timeout=SECONDS")
    if error.code is grpc.StatusCode.NOT_FOUND:
        near = closest(config.service, HEALTH_NAMES)
        known = ", ".join(name for name in HEALTH_NAMES if name)
        return InputError(
            f"service: {config.address} has no health service '{config.service}'{near}; there are {known}"
        )
    return InputError(failure_message(error, config))
