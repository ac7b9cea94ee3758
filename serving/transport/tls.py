"""TLS and mutual TLS: certificates from files, reloaded when they are renewed."""

from __future__ import annotations

import logging
from pathlib import Path

import grpc

from conf.errors import InputError
from conf.serving import TlsConfig

_LOG = logging.getLogger(__name__)


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials | None:
    """Return the credentials of the port; None where no certificate is configured.

    A renewed certificate is used from the next connection on; if it cannot be read, the former one stays.

    Raises:
        InputError: a file that is missing or no PEM.
    """
    if not config.certificate or not config.key:
        return None
    files = [Path(config.certificate), Path(config.key)]
    if config.client_ca:
        files.append(Path(config.client_ca))
    known = _times(files)
    first = _configuration(files)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        try:
            now = _times(files)
            if now == known:
                return None
            made = _configuration(files)
        except InputError as error:
            _LOG.error("the former certificate stays in use: %s", error)
            return None
        known = now
        return made

    credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
        first,
        renewed,  # type: ignore[arg-type]  # the stubs lack None, which means no change
        require_client_authentication=config.client_ca is not None,
    )
    return credentials


def _times(files: list[Path]) -> list[int]:
    try:
        return [file.stat().st_mtime_ns for file in files]
    except OSError as error:
        raise InputError(f"tls: {error.filename} cannot be read ({error.strerror})") from error


def _configuration(files: list[Path]) -> grpc.ServerCertificateConfiguration:
    certificate, key = _pem(files[0], b"CERTIFICATE"), _pem(files[1], b"PRIVATE KEY")
    authority = _pem(files[2], b"CERTIFICATE") if len(files) > 2 else None
    return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authority)


def _pem(path: Path, kind: bytes) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"tls: {path} cannot be read ({error.strerror})") from error
    if b"-----BEGIN " not in content or kind not in content:
        raise InputError(f"tls: {path} holds no {kind.decode().lower()} in PEM form")
    return content
