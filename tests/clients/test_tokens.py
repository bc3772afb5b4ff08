"""Tokens that PyJWT signs, with keys as an issuer publishes them: whom the version believes to serve."""

import json
import os
import time

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from support import PATIENCE, eventually

KINDS = {
    "RS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "PS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "ES384": (lambda: ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}


class Issuer:
    def __init__(self, folder):
        self.file = folder / "jwks.json"
        self.keys = {algorithm: make() for algorithm, (make, _) in KINDS.items()}
        self.publish()

    def publish(self):
        public = []
        for algorithm, key in self.keys.items():
            jwk = json.loads(KINDS[algorithm][1].to_jwk(key.public_key()))
            public.append(jwk | {"kid": f"key-{algorithm}", "alg": algorithm, "use": "sig"})
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"keys": public}))
        os.replace(fresh, self.file)

    def token(self, algorithm="ES256", player="ada", **more):
        claims = {"iss": "https://id.example", "aud": "games", "sub": player, "exp": time.time() + 600}
        head = {"kid": f"key-{algorithm}"}
        return jwt.encode(claims | more, self.keys[algorithm], algorithm, head)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture(scope="module")
def guarded(issuer, origins, start):
    versions = {name: {"endpoints": [origin.address]} for name, origin in origins.items()}
    players = {
        "jwks": str(issuer.file), "algorithms": list(KINDS), "issuer": "https://id.example",
        "audience": "games", "headers": {"x-player-id": "sub"},
    }
    top = "jwt: " + json.dumps({"players": players})
    with start(route="auth: { jwt: players }", top=top, **versions) as proxy:
        yield proxy


@pytest.fixture(params=[False, True], ids=["h1", "h2"])
def session(guarded, request):
    context = guarded.authority.context()
    with httpx.Client(http1=not request.param, http2=request.param, verify=context, timeout=PATIENCE,
                      base_url=guarded.url("")) as session:
        yield session


def bearer(token):
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("algorithm", KINDS)
def test_the_version_learns_the_player_from_a_token_and_from_nothing_else(session, issuer, algorithm):
    player = f"player-{algorithm}"
    sent = bearer(issuer.token(algorithm, player)) | {"x-player-id": "eve", "x_player_id": "eve"}
    answer = session.get("/head", headers=sent)
    assert answer.status_code == 200, answer.text
    told = [value for name, value in answer.json() if name.replace("_", "-") == "x-player-id"]
    assert told == [player]


def test_whoever_has_no_good_token_is_told_so(session, issuer):
    public = issuer.keys["RS256"].public_key().public_numbers().n.to_bytes(256)
    forged = {"iss": "https://id.example", "aud": "games", "sub": "eve", "exp": time.time() + 600}
    for sent, error in [
        ({}, None),
        (bearer(issuer.token(exp=time.time() - 60)), "invalid_token"),
        (bearer(issuer.token(aud="bank")), "invalid_token"),
        (bearer(issuer.token(iss="https://evil.example")), "invalid_token"),
        (bearer(jwt.encode(forged, None, "none")), "invalid_token"),
        (bearer(jwt.encode(forged, public, "HS256", {"kid": "key-RS256"})), "invalid_token"),
    ]:
        answer = session.get("/version", headers=sent)
        assert answer.status_code == 401, sent
        challenge = answer.headers["www-authenticate"]
        assert challenge == ("Bearer" if error is None else f'Bearer error="{error}"')
        assert answer.headers["content-type"] == "application/problem+json"
        token = sent.get("authorization", "Bearer -")[7:]
        assert token == "-" or token not in answer.text


def test_a_new_key_counts_as_soon_as_it_is_published(session, issuer):
    before = issuer.token()
    assert session.get("/version", headers=bearer(before)).status_code == 200
    issuer.keys["ES256"] = KINDS["ES256"][0]()
    after = issuer.token()
    assert session.get("/version", headers=bearer(after)).status_code == 401
    issuer.publish()
    eventually("the key is read", lambda: session.get("/version", headers=bearer(after)).is_success)
    assert session.get("/version", headers=bearer(before)).status_code == 401
