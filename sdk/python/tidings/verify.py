"""Signatures of deliveries: Standard Webhooks 1.0, symmetric (`v1`, HMAC-SHA256) and asymmetric (`v1a`, Ed25519)."""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterable, List, Mapping, Optional, Union

PREFIX = "whsec_"
PUBLIC_PREFIX = "whpk_"
PUBLIC_BYTES = 32
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
#: How far a signature's time may be off (Standard Webhooks: 5 minutes).
TOLERANCE_S = 300
#: Most signatures looked at in one header: a hostile header must not cost more.
SIGNATURES_MAX = 16


class VerificationError(Exception):
    """The request is not a delivery of ours. Answer 400 and do not look at its body."""


@dataclass(frozen=True)
class Delivery:
    """A delivery whose signature is good."""

    #: The `eventId`: the same at every attempt.
    id: str
    #: When the attempt was signed, in seconds since 1970.
    timestamp_s: int
    #: Which attempt this is, from 1; None if the header is missing.
    attempt: Optional[int]
    #: The replay that it is part of, if any.
    replay: Optional[str]
    #: The body as it came.
    body: bytes

    def event(self) -> Any:
        """The body as JSON: with format `envelope` the event."""
        return json.loads(self.body)


class Verifier:
    """Verifies deliveries with any of its secrets (`whsec_…`) and public keys (`whpk_…`): while they rotate, give both.

    Give public keys alone to a receiver that must not be able to sign. They need the package `cryptography`
    (`pip install tidings[ed25519]`)."""

    def __init__(self, secrets: Union[str, Iterable[str]], tolerance_s: int = TOLERANCE_S):
        listed = [secrets] if isinstance(secrets, str) else list(secrets)
        if not listed:
            raise ValueError("a verifier needs a secret")
        self._judges = [_judge(secret) for secret in listed]
        self._tolerance_s = tolerance_s

    def verify(self, headers: Mapping[str, str], body: Union[bytes, str], now_s: Optional[float] = None) -> Delivery:
        """The delivery, if one signature fits and its time is recent. `body` is the body as it came, not parsed and
        written again. Raises VerificationError."""
        found = {name.lower(): value for name, value in headers.items()}
        name, sent, given = (_header(found, f"webhook-{part}") for part in ("id", "timestamp", "signature"))
        if not re.fullmatch(r"[0-9]{1,12}", sent):
            raise VerificationError("webhook-timestamp is not a number of seconds")
        timestamp_s = int(sent)
        if abs((time.time() if now_s is None else now_s) - timestamp_s) > self._tolerance_s:
            raise VerificationError(f"webhook-timestamp is more than {self._tolerance_s} seconds off")
        raw = body.encode() if isinstance(body, str) else bytes(body)
        signed = _bytes(f"{name}.{timestamp_s}.") + raw
        signatures = given.split(" ")[:SIGNATURES_MAX]
        fits = False
        # No early exit: the time tells nothing.
        for judge in self._judges:
            fits |= judge(signed, signatures)
        if not fits:
            raise VerificationError("no signature fits: the body was changed, or the secret is another one")
        attempt = found.get("tidings-attempt", "")
        return Delivery(
            name, timestamp_s, int(attempt) if re.fullmatch(r"[0-9]{1,9}", attempt) else None, found.get("tidings-replay"), raw
        )


def sign(secret: str, id: str, timestamp_s: int, body: bytes) -> dict:
    """The headers of a delivery, to test a receiver with."""
    signature = b"v1," + _mac(_key(secret), id, timestamp_s, body)
    return {"webhook-id": id, "webhook-timestamp": str(timestamp_s), "webhook-signature": signature.decode()}


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise VerificationError(f"the header {name} is missing")
    return value


def _key(secret: str) -> bytes:
    wrong = ValueError("a signing secret is `whsec_` followed by the base64 of 24 to 64 random bytes")
    if not secret.startswith(PREFIX):
        raise wrong
    encoded = secret[len(PREFIX):].rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise wrong from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise wrong
    return key


def _judge(secret: str) -> Callable[[bytes, List[str]], bool]:
    """What says whether one of the signatures of a message is of this secret or key."""
    if secret.startswith(PUBLIC_PREFIX):
        return _public(secret)
    key = _key(secret)

    def judge(signed: bytes, signatures: List[str]) -> bool:
        good, fits = b"v1," + _digest(key, signed), False
        for signature in signatures:
            fits |= hmac.compare_digest(_bytes(signature), good)
        return fits

    return judge


def _public(text: str) -> Callable[[bytes, List[str]], bool]:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise ImportError("a public key needs the package cryptography: pip install tidings[ed25519]") from None
    encoded = text[len(PUBLIC_PREFIX):].rstrip("=")
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != PUBLIC_BYTES:
        raise ValueError("a public key is `whpk_` followed by the base64 of 32 bytes")
    key = Ed25519PublicKey.from_public_bytes(raw)

    def fits(signed: bytes, signature: str) -> bool:
        version, _, encoded = signature.partition(",")
        if version != "v1a" or not re.fullmatch(r"[A-Za-z0-9+/]{86}==", encoded):
            return False
        try:
            key.verify(base64.b64decode(encoded), signed)
        except InvalidSignature:
            return False
        return True

    return lambda signed, signatures: any(fits(signed, signature) for signature in signatures)


def _mac(key: bytes, id: str, timestamp_s: int, body: bytes) -> bytes:
    return _digest(key, _bytes(f"{id}.{timestamp_s}.") + body)


def _digest(key: bytes, signed: bytes) -> bytes:
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())


def _bytes(text: str) -> bytes:
    """Some servers hand on bytes that are no text as lone surrogates: they fit no signature, and are no error of ours."""
    return text.encode(errors="replace")
