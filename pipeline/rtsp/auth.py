"""RTSP authentication: Digest (RFC 2617, RFC 7616) as server and client, and Basic as client."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

REALM = "facestream"
_FIELD = re.compile(r'([A-Za-z]+)\s*=\s*(?:"([^"]*)"|([^,\s]*))')
_HASHES = {"MD5": "md5", "SHA-256": "sha256"}


def fields(text: str) -> dict[str, str]:
    """The fields of a WWW-Authenticate or Authorization header, names in lower case."""
    return {name.lower(): quoted or plain for name, quoted, plain in _FIELD.findall(text)}


class Gate:
    """Server-side Digest authentication of one connection; its nonce is not valid on another one.

    users: name -> password; empty lets everybody in.
    """

    def __init__(self) -> None:
        self.nonce = secrets.token_hex(16)
        self.failures = 0

    def challenge(self) -> str:
        """The WWW-Authenticate header. MD5, since current players support nothing else."""
        return f'Digest realm="{REALM}", nonce="{self.nonce}", algorithm=MD5'

    def admits(self, users: dict[str, str], method: str, header: str) -> bool:
        """Whether an Authorization header authenticates one of the users. header: "" if there is none."""
        if not users:
            return True
        if not header:
            return False
        given = fields(header) if header.lower().startswith("digest ") else {}
        user = given.get("username", "")
        # Constant time: an unknown user takes as long as a known one.
        password = users.get(user, secrets.token_hex(8))
        ok = given.get("realm") == REALM and hmac.compare_digest(given.get("nonce", "").encode(), self.nonce.encode())
        want = digest(user, password, method, given.get("uri", ""), given)
        ok &= user in users and hmac.compare_digest(given.get("response", "").encode(), want.encode())
        self.failures += not ok
        return ok


def answer(challenges: str, user: str, password: str, method: str, url: str) -> str | None:
    """The client's Authorization header for WWW-Authenticate headers (one per line); None if none is supported."""
    offers = challenges.split("\n")
    for offer in offers:
        given = fields(offer)
        if not offer.lower().startswith("digest") or given.get("algorithm", "MD5").upper() not in _HASHES:
            continue
        proof = {"nonce": given.get("nonce", ""), "realm": given.get("realm", "")}
        if "algorithm" in given:
            proof["algorithm"] = given["algorithm"]
        if "auth" in given.get("qop", "").replace(" ", "").split(","):
            proof |= {"qop": "auth", "nc": "00000001", "cnonce": secrets.token_hex(8)}
        response = digest(user, password, method, url, proof)
        named = {"username": user, "uri": url, "response": response, **proof}
        if "opaque" in given:
            named["opaque"] = given["opaque"]
        bare = ("qop", "nc", "algorithm")
        return "Digest " + ", ".join(f"{k}={v}" if k in bare else f'{k}="{v}"' for k, v in named.items())
    if any(offer.lower().startswith("basic") for offer in offers):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return None


def digest(user: str, password: str, method: str, url: str, proof: dict[str, str]) -> str:
    """The Digest response: RFC 2617 section 3.2.2.1, and the older form without qop, which RTSP mostly uses."""
    name = _HASHES.get(proof.get("algorithm", "MD5").upper(), "md5")

    def h(text: str) -> str:
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    ha1 = h(f"{user}:{proof.get('realm', '')}:{password}")
    ha2 = h(f"{method}:{url}")
    if proof.get("qop"):
        middle = f"{proof.get('nonce', '')}:{proof.get('nc', '')}:{proof.get('cnonce', '')}:{proof['qop']}"
        return h(f"{ha1}:{middle}:{ha2}")
    return h(f"{ha1}:{proof.get('nonce', '')}:{ha2}")
