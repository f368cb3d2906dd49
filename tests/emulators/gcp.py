"""Stands for Google Cloud KMS, the security token service and a service account's token endpoint, on a free loopback port.

Usage: gcp.py [DIRECTORY PORT]

With a directory, everything there is outlives the process: it is written there before an answer that tells of a change, and read
when the next one is started with the same directory and port.

Built on what Google publishes: requests are found by the URL templates of the package google-cloud-kms, read into its
messages and answered from them, so that a field or a path that Google does not know is refused. States, permissions and
checksums are enforced; texts of errors are those of the real service as far as they are known. What it is not: Google's
code. The ciphertext's shape is its own, a change takes effect at once, and quotas are those that a test sets.

The first line on standard output is JSON: "peer", what this is and the version of what it is built on, "port", and "owner_token",
with which one may do anything. Under /control/ a
test has it issue tokens, fail or lie (see Control). The process ends when its standard input closes.
"""

import base64
import hashlib
import importlib.metadata
import json
import os
import pickle
import re
import secrets
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.auth import crypt, jwt
from google.cloud.kms_v1 import types
from google.cloud.kms_v1.services.key_management_service.transports.rest_base import (
    _BaseKeyManagementServiceRestTransport as Published,
)
from google.iam.v1 import iam_policy_pb2
from google.protobuf import json_format
from google.rpc import code_pb2

State = types.CryptoKeyVersion.CryptoKeyVersionState
Purpose = types.CryptoKey.CryptoKeyPurpose
OWNER = "user:owner@example.com"
CIPHERTEXT_MAGIC = b"\x0a\x25"
TEXT_MAX_BYTES = 64 * 1024

PERMISSIONS = {
    "roles/cloudkms.cryptoKeyEncrypter": {"cloudkms.cryptoKeyVersions.useToEncrypt"},
    "roles/cloudkms.cryptoKeyDecrypter": {"cloudkms.cryptoKeyVersions.useToDecrypt"},
}
PERMISSIONS["roles/cloudkms.cryptoKeyEncrypterDecrypter"] = set().union(*PERMISSIONS.values())

HTTP_OF = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429, "INTERNAL": 500, "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip


class Refused(Exception):
    """An answer that is an error, in the form in which Google's APIs give one."""

    def __init__(self, status, message, *details):
        code_pb2.Code.Value(status)  # a status that Google has
        self.http_status = HTTP_OF[status]
        self.body = {"error": {"code": self.http_status, "message": message, "status": status}}
        if details:
            self.body["error"]["details"] = list(details)


class ExchangeRefused(Exception):
    """An answer of a token endpoint that is an error (RFC 6749, 5.2)."""

    def __init__(self, error, description, http_status=400):
        self.http_status = http_status
        self.body = {"error": error, "error_description": description}


class Version:
    def __init__(self, name):
        self.message = types.CryptoKeyVersion(
            name=name,
            state=State.ENABLED,
            algorithm=types.CryptoKeyVersion.CryptoKeyVersionAlgorithm.GOOGLE_SYMMETRIC_ENCRYPTION,
            protection_level=types.ProtectionLevel.SOFTWARE,
        )
        self.material = secrets.token_bytes(32)


class Key:
    def __init__(self, message):
        self.message = message
        self.versions = {}
        self.primary = None
        self.policy = None

    def add_version(self):
        number = len(self.versions) + 1
        self.versions[number] = Version(f"{self.message.name}/cryptoKeyVersions/{number}")
        return self.versions[number]

    def shown(self):
        shown = types.CryptoKey(self.message)
        if self.primary:
            shown.primary = self.versions[self.primary].message
        return shown

    def allows(self, member, permission):
        if member == OWNER:
            return True
        bindings = self.policy.bindings if self.policy else []
        return any(member in b.members and permission in PERMISSIONS.get(b.role, ()) for b in bindings)

    def prefix(self):
        return CIPHERTEXT_MAGIC + hashlib.sha256(self.message.name.encode()).digest()[:8]


class Issuer:
    """Signs tokens: an OpenID Connect issuer, or a service account."""

    def __init__(self, name):
        self.name = name
        self.key_id = secrets.token_hex(8)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.private_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self.public_pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims):
        signer = crypt.RSASigner.from_string(self.private_pem, self.key_id)
        return jwt.encode(signer, claims).decode()

    def verify(self, token):
        """The claims, if the signature and the times are right; ValueError otherwise."""
        return jwt.decode(token, certs={self.key_id: self.public_pem}, clock_skew_in_seconds=10)


class World:
    """Everything there is, behind one lock."""

    directory = None  # where it is kept, if it is

    @classmethod
    def kept_in(cls, directory):
        """What an earlier process left in this directory; a new one if there is nothing."""
        try:
            with open(os.path.join(directory, "gcp"), "rb") as file:
                world = pickle.load(file)
        except FileNotFoundError:
            world = cls()
        world.directory = directory
        world.keep()
        return world

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state):
        vars(self).update(state, lock=threading.RLock())

    def keep(self):
        if self.directory is None:
            return
        path = os.path.join(self.directory, "gcp")
        with self.lock:
            with open(f"{path}.new", "wb") as file:
                pickle.dump(self, file)
            os.replace(f"{path}.new", path)

    def __init__(self):
        self.lock = threading.RLock()
        self.rings = {}
        self.keys = {}
        self.tokens = {"owner-" + secrets.token_hex(16): (OWNER, float("inf"))}
        self.providers = {}
        self.issuers = {}
        self.service_accounts = {}
        self.faults = {}
        self.quotas = {}
        self.requests = []

    # who asks

    def authenticate(self, header):
        token = (header or "").removeprefix("Bearer ")
        member, ends = self.tokens.get(token, (None, 0))
        if member and time.time() < ends:
            return member
        if member is None and token.count(".") == 2:
            member = self.self_signed(token)
            if member:
                return member
        raise Refused(
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid authentication credential.",
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "ACCESS_TOKEN_EXPIRED", "domain": "googleapis.com"},
        )  # fmt: skip

    def self_signed(self, token):
        """A service account's own signature instead of a token that was issued for it."""
        account = self.service_accounts.get(unverified(token).get("iss"))
        if account is None:
            return None
        try:
            claims = account.verify(token)
        except ValueError:
            return None
        scopes = claims.get("scope", "").split()
        fits = claims.get("aud") == "https://cloudkms.googleapis.com/" or any(
            scope.endswith(("/auth/cloud-platform", "/auth/cloudkms")) for scope in scopes
        )
        ok = fits and claims.get("sub") == account.name and claims["exp"] - claims["iat"] <= 3700
        return f"serviceAccount:{account.name}" if ok else None

    def issue(self, member, lifetime_s):
        token = "ya29." + secrets.token_urlsafe(48)
        self.tokens[token] = (member, time.time() + lifetime_s)
        return {"access_token": token, "token_type": "Bearer", "expires_in": lifetime_s}

    def exchange(self, form):
        """The security token service (RFC 8693)."""
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange":
            raise ExchangeRefused("unsupported_grant_type", "Invalid grant_type.")
        for name in ("audience", "subject_token", "subject_token_type", "requested_token_type", "scope"):
            if not form.get(name):
                raise ExchangeRefused("invalid_request", f"Missing required parameter: {name}.")
        if form["subject_token_type"] not in (
            "urn:ietf:params:oauth:token-type:jwt",
            "urn:ietf:params:oauth:token-type:id_token",
        ):
            raise ExchangeRefused("invalid_request", "Invalid subject_token_type.")
        name = form["audience"].removeprefix("//iam.googleapis.com/")
        provider = self.providers.get(name)
        if provider is None or provider["disabled"] or name == form["audience"]:
            raise ExchangeRefused(
                "invalid_target",
                'The target service indicated by the "audience" parameters is invalid. This might either be because the pool or provider is disabled or deleted or because it doesn\'t exist.',
            )
        issuer = self.issuers.get(provider["issuer"])
        try:
            claims = issuer.verify(form["subject_token"])
        except (ValueError, AttributeError):
            raise ExchangeRefused("invalid_grant", "The subject token's signature or times could not be verified.")
        if claims.get("iss") != provider["issuer"]:
            raise ExchangeRefused("invalid_grant", f"The issuer in ID Token {claims.get('iss')} does not match the expected ones.")
        if claims.get("aud") not in (provider["audiences"] or [f"https://iam.googleapis.com/{name}"]):
            raise ExchangeRefused("invalid_grant", f"The audience in ID Token [{claims.get('aud')}] does not match the expected audience.")
        if not claims.get("sub", "").startswith(provider["subject_prefix"]):
            raise ExchangeRefused("unauthorized_client", "The given credential is rejected by the attribute condition.")
        pool = name.rsplit("/providers/", 1)[0]
        answer = self.issue(f"principal://iam.googleapis.com/{pool}/subject/{claims['sub']}", provider["lifetime_s"])
        return answer | {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}

    def assert_service_account(self, form):
        """The token endpoint of service accounts (RFC 7523)."""
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            raise ExchangeRefused("unsupported_grant_type", "Invalid grant_type.")
        account = self.service_accounts.get(unverified(form.get("assertion", "")).get("iss"))
        if account is None:
            raise ExchangeRefused("invalid_grant", "Invalid grant: account not found")
        try:
            account.verify(form["assertion"])
        except ValueError:
            raise ExchangeRefused("invalid_grant", "Invalid JWT Signature.")
        return self.issue(f"serviceAccount:{account.name}", 3599)

    # the key management service: one method for each call, by its published name

    def CreateKeyRing(self, request, member):
        name = f"{request.parent}/keyRings/{request.key_ring_id}"
        if name in self.rings:
            raise Refused("ALREADY_EXISTS", f"KeyRing {name} already exists.")
        self.rings[name] = types.KeyRing(name=name)
        return self.rings[name]

    def CreateCryptoKey(self, request, member):
        if request.parent not in self.rings:
            raise Refused("NOT_FOUND", f"KeyRing {request.parent} not found.")
        name = f"{request.parent}/cryptoKeys/{request.crypto_key_id}"
        if name in self.keys:
            raise Refused("ALREADY_EXISTS", f"CryptoKey {name} already exists.")
        key = Key(types.CryptoKey(request.crypto_key, name=name))
        self.keys[name] = key
        if not request.skip_initial_version_creation:
            key.add_version()
            if key.message.purpose == Purpose.ENCRYPT_DECRYPT:
                key.primary = 1
        return key.shown()

    def GetCryptoKey(self, request, member):
        return self.key(request.name, member, "cloudkms.cryptoKeys.get").shown()

    def CreateCryptoKeyVersion(self, request, member):
        return self.key(request.parent, member, "cloudkms.cryptoKeyVersions.create").add_version().message

    def UpdateCryptoKeyPrimaryVersion(self, request, member):
        key = self.key(request.name, member, "cloudkms.cryptoKeys.update")
        number = int(request.crypto_key_version_id)
        if number not in key.versions:
            raise Refused("NOT_FOUND", f"CryptoKeyVersion {number} of {request.name} not found.")
        key.primary = number
        return key.shown()

    def UpdateCryptoKeyVersion(self, request, member):
        wanted = request.crypto_key_version
        if list(request.update_mask.paths) != ["state"] or wanted.state not in (State.ENABLED, State.DISABLED):
            raise Refused("INVALID_ARGUMENT", "Only the state can be updated, to ENABLED or DISABLED.")
        version = self.version(wanted.name, member, "cloudkms.cryptoKeyVersions.update")
        if version.message.state not in (State.ENABLED, State.DISABLED):
            raise self.in_state(version)
        version.message.state = wanted.state
        return version.message

    def DestroyCryptoKeyVersion(self, request, member):
        version = self.version(request.name, member, "cloudkms.cryptoKeyVersions.destroy")
        if version.message.state not in (State.ENABLED, State.DISABLED):
            raise self.in_state(version)
        version.message.state = State.DESTROY_SCHEDULED
        return version.message

    def RestoreCryptoKeyVersion(self, request, member):
        version = self.version(request.name, member, "cloudkms.cryptoKeyVersions.restore")
        if version.message.state != State.DESTROY_SCHEDULED:
            raise self.in_state(version)
        version.message.state = State.DISABLED
        return version.message

    def SetIamPolicy(self, request, member):
        self.key(request.resource, member, "cloudkms.cryptoKeys.setIamPolicy").policy = request.policy
        return request.policy

    def Encrypt(self, request, member):
        name, _, number = request.name.partition("/cryptoKeyVersions/")
        key = self.key(name, member, "cloudkms.cryptoKeyVersions.useToEncrypt")
        self.charge(name)
        if key.message.purpose != Purpose.ENCRYPT_DECRYPT:
            raise Refused("INVALID_ARGUMENT", f"The CryptoKey purpose of {name} does not allow Encrypt.")
        if not request.plaintext or len(request.plaintext) > TEXT_MAX_BYTES:
            raise Refused("INVALID_ARGUMENT", "The plaintext is empty or too long.")
        check_sum(request, "plaintext")
        check_sum(request, "additional_authenticated_data")
        number = int(number) if number else key.primary
        if number is None:
            raise Refused("FAILED_PRECONDITION", f"CryptoKey {name} has no primary version.")
        version = self.usable(key, number)
        nonce = secrets.token_bytes(12)
        head = key.prefix() + number.to_bytes(4, "big") + nonce
        body = AESGCM(version.material).encrypt(nonce, request.plaintext, head + request.additional_authenticated_data)
        return types.EncryptResponse(
            name=version.message.name,
            ciphertext=head + body,
            ciphertext_crc32c=crc32c(head + body),
            verified_plaintext_crc32c=has_sum(request, "plaintext"),
            verified_additional_authenticated_data_crc32c=has_sum(request, "additional_authenticated_data"),
            protection_level=version.message.protection_level,
        )

    def Decrypt(self, request, member):
        key = self.key(request.name, member, "cloudkms.cryptoKeyVersions.useToDecrypt")
        self.charge(request.name)
        check_sum(request, "ciphertext")
        check_sum(request, "additional_authenticated_data")
        head, body = request.ciphertext[:26], request.ciphertext[26:]
        number = int.from_bytes(head[10:14], "big")
        if len(head) < 26 or not head.startswith(key.prefix()) or number not in key.versions:
            raise Refused("INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
        version = self.usable(key, number)
        try:
            plaintext = AESGCM(version.material).decrypt(head[14:], body, head + request.additional_authenticated_data)
        except InvalidTag:
            raise Refused("INVALID_ARGUMENT", "Decryption failed: the ciphertext is invalid.")
        return types.DecryptResponse(
            plaintext=plaintext,
            plaintext_crc32c=crc32c(plaintext),
            used_primary=number == key.primary,
            protection_level=version.message.protection_level,
        )

    def key(self, name, member, permission):
        key = self.keys.get(name)
        # Who may not know that a key is there does not learn it.
        if member != OWNER and (key is None or not key.allows(member, permission)):
            raise Refused(
                "PERMISSION_DENIED",
                f"Permission '{permission}' denied on resource '{name}' (or it may not exist).",
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "IAM_PERMISSION_DENIED", "domain": "cloudkms.googleapis.com"},
            )  # fmt: skip
        if key is None:
            raise Refused("NOT_FOUND", f"CryptoKey {name} not found.")
        return key

    def version(self, name, member, permission):
        key_name, _, number = name.partition("/cryptoKeyVersions/")
        key = self.key(key_name, member, permission)
        if int(number) not in key.versions:
            raise Refused("NOT_FOUND", f"CryptoKeyVersion {name} not found.")
        return key.versions[int(number)]

    def usable(self, key, number):
        version = key.versions[number]
        if version.message.state != State.ENABLED:
            raise self.in_state(version)
        return version

    @staticmethod
    def in_state(version):
        state = State(version.message.state).name
        return Refused("FAILED_PRECONDITION", f"{version.message.name} is not enabled, current state is: {state}.")

    def charge(self, name):
        left = self.quotas.get(name)
        if left == 0:
            raise Refused(
                "RESOURCE_EXHAUSTED",
                "Quota exceeded for quota metric 'Cryptographic requests' and limit 'Cryptographic requests per minute'.",
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"},
            )
        if left is not None:
            self.quotas[name] = left - 1


class Control:
    """What a test asks for that Google's own interfaces do not offer: POST /control/<method> with a JSON object."""

    def __init__(self, world):
        self.world = world

    def faults(self, on, faults):
        """The next calls on this key or provider meet these faults, one each (see `Handler.harm`); none forgets the rest."""
        self.world.faults[on] = list(faults)

    def quota(self, on, left):
        """So many more calls of this key are served, then none; null lifts it."""
        self.world.quotas[on] = left

    def destroy(self, version):
        """The time of a version that was scheduled for destruction has come."""
        version = self.world.version(version, OWNER, "")
        version.message.state = State.DESTROYED
        version.material = None

    def state(self, version, state):
        """Puts a version into a state that no owner can ask for."""
        self.world.version(version, OWNER, "").message.state = State[state]

    def unset_primary(self, key):
        self.world.keys[key].primary = None

    def provider(self, name, issuer, audiences=(), subject_prefix="", disabled=False, lifetime_s=3599):
        self.world.providers[name] = {
            "issuer": issuer, "audiences": list(audiences), "subject_prefix": subject_prefix,
            "disabled": disabled, "lifetime_s": lifetime_s,
        }  # fmt: skip

    def mint(self, issuer, audience, subject, lifetime_s=600, forged=False):
        """A token of this issuer, who comes into being with the first one."""
        signer = self.world.issuers.setdefault(issuer, Issuer(issuer))
        if forged:
            signer = Issuer(issuer)
            signer.key_id = self.world.issuers[issuer].key_id
        now = int(time.time())
        claims = {"iss": issuer, "aud": audience, "sub": subject, "iat": now - 60, "exp": now + lifetime_s}
        return {"token": signer.sign(claims)}

    def service_account(self, email, token_uri):
        """Makes a service account; returns the file that Google's console would."""
        account = self.world.service_accounts[email] = Issuer(email)
        return {
            "type": "service_account", "project_id": "keystead", "private_key_id": account.key_id,
            "private_key": account.private_pem, "client_email": email, "client_id": "1", "token_uri": token_uri,
        }  # fmt: skip

    def disable_service_account(self, email):
        del self.world.service_accounts[email]

    def expire(self, member):
        """All access tokens of this member end now."""
        for token, (of, _) in list(self.world.tokens.items()):
            if of == member:
                self.world.tokens[token] = (of, 0)

    def requests(self, on):
        """What was asked of this key or provider: the call, who asked, the request as it came."""
        return {"requests": [request for request in self.world.requests if request["on"] == on]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one packet: none waits for another's acknowledgement.
    wbufsize = -1
    world: World
    control: Control

    def do_GET(self):
        self.serve("get")

    def do_POST(self):
        self.serve("post")

    def do_PATCH(self):
        self.serve("patch")

    def serve(self, method):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(url.path), dict(urllib.parse.parse_qsl(url.query))
        try:
            if path.startswith("/control/"):
                with self.world.lock:
                    answer = getattr(self.control, path.removeprefix("/control/"))(**json.loads(body))
                    self.world.keep()
                return self.answer(200, answer or {})
            if path in ("/v1/token", "/token"):
                return self.serve_token(path, body)
            return self.serve_call(method, path, query, body)
        except (Refused, ExchangeRefused) as refused:
            return self.answer(refused.http_status, refused.body)

    def serve_token(self, path, body):
        form = dict(urllib.parse.parse_qsl(body.decode()))
        on = form.get("audience", "").removeprefix("//iam.googleapis.com/")
        fault = self.fault(on, "Exchange")
        self.note(on, "Exchange", "", form)
        if fault and self.harm(fault):
            return
        with self.world.lock:
            answer = (self.world.exchange if path == "/v1/token" else self.world.assert_service_account)(form)
            self.world.keep()
        self.answer(200, self.lie(fault, answer), fault=fault)

    def serve_call(self, method, path, query, body):
        call, fields = find_call(method, path)
        data = json.loads(body or b"{}")
        variable, value, body_field = fields
        if body_field and body_field != "*":
            data = {body_field: data}
        data = {**query, **data} if body_field == "*" or not body_field else {**data, **query}
        data.pop("$alt", None)
        data.pop("alt", None)
        set_in(data, variable, value)
        message = parse(call, data)
        on = value.partition("/cryptoKeyVersions/")[0]
        fault = self.fault(on, call)
        with self.world.lock:
            member = self.world.authenticate(self.headers.get("authorization"))
        self.note(on, call, member, data)
        if fault and self.harm(fault):
            return
        if fault and "flip_request" in fault:
            field = fault["flip_request"]
            setattr(message, field, flipped(getattr(message, field)))
        handler = getattr(self.world, call, None)
        if handler is None:
            raise Refused("UNIMPLEMENTED", f"{call} is not served here.")
        with self.world.lock:
            answer = handler(message, member)
            if call not in ("Encrypt", "Decrypt"):
                self.world.keep()
            pb = type(answer).pb(answer) if hasattr(type(answer), "pb") else answer
            shown = json_format.MessageToDict(pb)
        self.answer(200, self.lie(fault, shown), fault=fault)

    # faults: {"rpc": …, one of the following}

    def fault(self, on, call):
        with self.world.lock:
            waiting = self.world.faults.get(on, [])
            for index, fault in enumerate(waiting):
                if fault.get("rpc") in (None, call):
                    return waiting.pop(index)
        return None

    def harm(self, fault):
        """Delays ("delay_ms"), closes the connection ("close") or gives another answer ("status", "body", "headers")."""
        time.sleep(fault.get("delay_ms", 0) / 1000)
        if fault.get("close"):
            self.close_connection = True
            return True
        if "status" in fault:
            self.answer(fault["status"], fault.get("body", ""), headers=fault.get("headers", {}))
            return True
        return False

    @staticmethod
    def lie(fault, answer):
        """Changes a good answer: "set" fields of it, "drop" some, "flip" a bit of one."""
        if fault:
            answer = {**answer, **fault.get("set", {})}
            for field in fault.get("drop", []):
                answer.pop(field, None)
            if "flip" in fault:
                field = fault["flip"]
                answer[field] = base64.b64encode(flipped(base64.b64decode(answer[field]))).decode()
        return answer

    def note(self, on, call, member, request):
        with self.world.lock:
            self.world.requests.append({"on": on, "rpc": call, "member": member, "request": request})

    def answer(self, status, body, headers=None, fault=None):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "text/html" if isinstance(body, str) else "application/json")
        self.send_header("content-length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if fault and fault.get("cut"):
            self.close_connection = True
            data = data[: len(data) // 2]
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def published_calls():
    """Every call of the service with its HTTP method, its path as an expression, and where its body goes."""
    for name, group in vars(Published).items():
        if not name.startswith("_Base") or not hasattr(group, "_get_http_options"):
            continue
        for option in group._get_http_options():
            before, variable, pattern, after = re.fullmatch(r"(.*)\{([\w.]+)=(.*)\}(.*)", option["uri"]).groups()
            pattern = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^/]+")
            path = re.compile(re.escape(before) + f"({pattern})" + re.escape(after))
            yield name.removeprefix("_Base"), option["method"], path, variable, option.get("body")


CALLS = list(published_calls())


def find_call(method, path):
    for name, of, expression, variable, body in CALLS:
        match = expression.fullmatch(path)
        if of == method and match:
            return name, (variable, match.group(1), body)
    raise Refused("NOT_FOUND", f"There is no call {method.upper()} {path}.")


def parse(call, data):
    """The published message of this call; a field that it does not have is refused."""
    try:
        if call == "SetIamPolicy":
            return json_format.ParseDict(data, iam_policy_pb2.SetIamPolicyRequest())
        message = getattr(types, f"{call}Request")
        return message.wrap(json_format.ParseDict(data, message.pb()()))
    except (json_format.ParseError, AttributeError) as error:
        raise Refused("INVALID_ARGUMENT", f"Invalid JSON payload received. {error}")


def set_in(data, dotted, value):
    *outer, last = dotted.split(".")
    for name in outer:
        data = data.setdefault(name, {})
    data[last] = value


def crc32c(data):
    return google_crc32c.value(data)


def has_sum(request, field):
    return type(request).pb(request).HasField(f"{field}_crc32c")


def check_sum(request, field):
    if has_sum(request, field) and getattr(request, f"{field}_crc32c") != crc32c(getattr(request, field)):
        raise Refused("INVALID_ARGUMENT", f"The checksum in field {field}_crc32c did not match the data in field {field}.")


def flipped(data):
    return bytes([data[0] ^ 1]) + data[1:]


def unverified(token):
    try:
        payload = token.split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return {}


def end_with_parent():
    def wait():
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    directory, port = sys.argv[1:3] or (None, 0)
    Handler.world = World() if directory is None else World.kept_in(directory)
    Handler.control = Control(Handler.world)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    owner_token = next(iter(Handler.world.tokens))
    peer = f"a server on Google's published definitions (google-cloud-kms {importlib.metadata.version('google-cloud-kms')})"
    print(json.dumps({"peer": peer, "port": server.server_port, "owner_token": owner_token}), flush=True)
    server.serve_forever()
