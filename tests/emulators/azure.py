"""Stands for Azure on loopback: Key Vaults, a managed HSM, Entra ID's token endpoint, and the managed identities of App Service.

Usage: azure.py serve [DIRECTORY PORT HTTPS_PORT]   serves until its standard input closes
       azure.py client                             one call by Microsoft's own client, as the JSON object on standard input says

With a directory, everything there is outlives the process: it is written there before an action of the owner's side is answered, and
read when the next one is started with the same directory and ports.

Requests are read and answers are written through the models of Microsoft's package azure-keyvault-keys, which are made from the
published definition of the REST interface. Keys are real ones, of the package cryptography.

`serve` prints one line of JSON: "peer", what this is and the version of what it is built on; "https_port", where vaults and Entra ID answer by their names on one port; "certificate", the PEM text
of the authority that has certified those names; "port", plain HTTP, for the owner's side (POST /control/<action>) and for managed
identities (GET /msi/token).

What is enforced: access tokens by signature, audience, tenant and expiry; client assertions by signature, issuer, subject, audience
and expiry; client secrets; grants of read, wrap and unwrap for each key; enabled, expiry, deletion. As at Azure, wrapping with a
disabled RSA key works, and unwrapping does not. Texts of errors have line ends and quotes, as Azure's have.
"""

import base64
import copyreg
import datetime
import importlib.metadata
import ipaddress
import json
import os
import pickle
import secrets
import socket
import ssl
import sys
import tempfile
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

VAULT_DOMAINS = {".vault.azure.net": "https://vault.azure.net", ".managedhsm.azure.net": "https://managedhsm.azure.net"}
EXCHANGE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Refused(Exception):
    """An answer that is not a success."""

    def __init__(self, status, body, headers=None):
        super().__init__(status)
        self.status, self.body, self.headers = status, body, headers or {}


def vault_error(status, code, message, inner=None):
    """As vaults answer; the model names the fields."""
    error = {"code": code, "message": message + '\r\nVault: "acme";location=westeurope\r\n'}
    if inner:
        error["innererror"] = {"code": inner}
    return Refused(status, {"error": error})


def entra_error(status, number, message, kind="invalid_client"):
    text = f"AADSTS{number}: {message} \"{kind}\".\r\nTrace ID: {uuid.uuid4()}\r\nCorrelation ID: {uuid.uuid4()}"
    return Refused(status, {"error": kind, "error_description": text, "error_codes": [number], "trace_id": "t"})


class Key:
    """One version of a key."""

    def __init__(self, kty, bits):
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.version = uuid.uuid4().hex
        self.kty = kty
        self.enabled, self.expires, self.not_before = True, None, None
        if kty.startswith("RSA"):
            self.material = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        else:
            self.material = secrets.token_bytes(bits // 8)

    def wrap(self, algorithm, plaintext):
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap

        if algorithm == "RSA-OAEP-256" and self.kty.startswith("RSA"):
            return self.material.public_key().encrypt(plaintext, oaep())
        if algorithm == "A256KW" and self.kty == "oct-HSM" and len(self.material) == 32:
            return aes_key_wrap(self.material, plaintext)
        raise ValueError("the key has no such algorithm")

    def unwrap(self, algorithm, blob):
        from cryptography.hazmat.primitives.keywrap import aes_key_unwrap

        if algorithm == "RSA-OAEP-256" and self.kty.startswith("RSA"):
            return self.material.decrypt(blob, oaep())
        if algorithm == "A256KW" and self.kty == "oct-HSM" and len(self.material) == 32:
            return aes_key_unwrap(self.material, blob)
        raise ValueError("the key has no such algorithm")


def oaep():
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)


def read_rsa_key(pem):
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(pem, None)


def write_rsa_key(key):
    from cryptography.hazmat.primitives import serialization

    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return read_rsa_key, (key.private_bytes(serialization.Encoding.PEM, *form),)


class Azure:
    """Everything there is: vaults, keys, tenants, applications, faults. Used under its lock."""

    directory = None  # where it is kept, if it is

    def __init__(self):
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.lock = threading.Lock()
        self.authority, self.chain = certify()
        self.vaults = {}  # host -> {"tenant", "keys": {name: [Key]}, "deleted": {name: [Key]}, "grants": {(name, client): set}}
        self.applications = {}  # (tenant, client id) -> {"secret", "expired", "enabled", "federated": [...]}
        self.issuers = {}  # url -> private key: whom applications may be proven by
        self.signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.faults, self.requests = [], []
        self.identity = None  # (tenant, client id) of the machine

    @classmethod
    def kept_in(cls, directory):
        """What an earlier process left in this directory; a new one if there is nothing."""
        try:
            with open(os.path.join(directory, "azure"), "rb") as file:
                azure = pickle.load(file)
        except FileNotFoundError:
            azure = cls()
        azure.directory = directory
        azure.keep()
        return azure

    def __getstate__(self):
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state):
        vars(self).update(state, lock=threading.Lock())

    def keep(self):
        if self.directory is None:
            return
        path = os.path.join(self.directory, "azure")
        with self.lock:
            copyreg.pickle(type(self.signing), write_rsa_key)
            with open(f"{path}.new", "wb") as file:
                pickle.dump(self, file)
            os.replace(f"{path}.new", path)

    # the owner's side

    def control(self, action, said):
        answer = getattr(self, f"do_{action}")(**said) or {}
        self.keep()
        return answer

    def do_create_key(self, vault, tenant, name, kty="RSA", bits=2048):
        key = Key(kty, bits)
        with self.lock:
            place = self.vaults.setdefault(vault, {"tenant": tenant, "keys": {}, "deleted": {}, "grants": {}})
            place["keys"].setdefault(name.lower(), []).append(key)
        return {"id": f"https://{vault}/keys/{name}", "version": key.version}

    def do_set_key(self, vault, name, version=None, enabled=True, expires_in=None):
        with self.lock:
            for key in self.vaults[vault]["keys"][name.lower()]:
                if version in (None, key.version):
                    key.enabled = enabled
                    key.expires = None if expires_in is None else time.time() + expires_in

    def do_delete_key(self, vault, name):
        with self.lock:
            place = self.vaults[vault]
            place["deleted"][name.lower()] = place["keys"].pop(name.lower())

    def do_recover_key(self, vault, name):
        with self.lock:
            place = self.vaults[vault]
            place["keys"][name.lower()] = place["deleted"].pop(name.lower())

    def do_grant(self, vault, name, client_id, actions):
        with self.lock:
            self.vaults[vault]["grants"][name.lower(), client_id] = set(actions)

    def do_create_application(self, tenant):
        client_id, secret = str(uuid.uuid4()), "~8Q" + secrets.token_urlsafe(24)
        with self.lock:
            self.applications[tenant, client_id] = {
                "secret": secret, "expired": False, "enabled": True, "federated": [], "lifetime": 3600,
            }
        return {"client_id": client_id, "secret": secret}

    def do_set_application(self, tenant, client_id, **fields):
        with self.lock:
            self.applications[tenant, client_id].update(fields)

    def do_federate(self, tenant, client_id, issuer, subject, audience):
        with self.lock:
            self.applications[tenant, client_id]["federated"].append((issuer, subject, audience))

    def do_mint(self, issuer, subject, audience, lifetime=600, forged=False):
        """A token of an application that is its own issuer; a forged one has the signature of nobody."""
        import jwt
        from cryptography.hazmat.primitives.asymmetric import rsa

        with self.lock:
            own = self.issuers.get(issuer)
            if own is None:
                own = self.issuers[issuer] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        if forged:
            own = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        now = int(time.time())
        claims = {"iss": issuer, "sub": subject, "aud": audience, "iat": now - 5, "nbf": now - 5, "exp": now + lifetime}
        return {"token": jwt.encode(claims, own, algorithm="RS256", headers={"kid": "1"})}

    def do_access_token(self, tenant, client_id, audience):
        return {"token": self.access_token(tenant, client_id, audience, 3600)}

    def do_revoke_tokens(self):
        """No access token that was given out is accepted any more."""
        from cryptography.hazmat.primitives.asymmetric import rsa

        fresh = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        with self.lock:
            self.signing = fresh

    def do_machine_identity(self, tenant, client_id):
        with self.lock:
            self.identity = (tenant, client_id)

    def do_inject(self, **fault):
        """The next `times` requests of `operation` (at `host`, if said) are answered by `status`, `headers`, `body`; or not at
        all (`drop`); or after `delay_ms`; or from a key of another id (`kid`). A vault's body repeats the request's access token
        where it says `@TOKEN@`, and the last part of it where it says `@SIGNATURE@`."""
        with self.lock:
            self.faults.append({"times": 1, "host": None, **fault})

    def do_clear_faults(self):
        with self.lock:
            self.faults.clear()

    def do_requests(self):
        with self.lock:
            seen, self.requests = self.requests, []
        return {"requests": seen}

    # what both services share

    def fault(self, host, operation):
        with self.lock:
            for fault in self.faults:
                if fault["operation"] == operation and fault["host"] in (None, host) and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return {}

    def note(self, **what):
        with self.lock:
            self.requests.append(what)

    def access_token(self, tenant, client_id, audience, lifetime):
        import jwt

        now = int(time.time())
        claims = {
            "aud": audience, "iss": f"https://sts.windows.net/{tenant}/", "tid": tenant, "appid": client_id,
            "iat": now, "nbf": now, "exp": now + lifetime, "uti": secrets.token_urlsafe(12),
        }
        return jwt.encode(claims, self.signing, algorithm="RS256")

    # Entra ID

    def token(self, tenant, form):
        one = lambda name: form.get(name, [""])[0]
        if one("grant_type") != "client_credentials":
            raise entra_error(400, 70003, "The app requested an unsupported grant type", "unsupported_grant_type")
        scope, client_id = one("scope"), one("client_id")
        audience = scope.removesuffix("/.default")
        if audience == scope or audience not in VAULT_DOMAINS.values():
            raise entra_error(400, 500011, f"The resource principal named {audience} was not found in the tenant", "invalid_resource")
        with self.lock:
            if not any(known == tenant for known, _ in self.applications):
                raise entra_error(400, 90002, f"Tenant '{tenant}' not found", "invalid_request")
            application = self.applications.get((tenant, client_id))
        if application is None:
            raise entra_error(400, 700016, f"Application with identifier '{client_id}' was not found in the directory", "unauthorized_client")
        if not application["enabled"]:
            raise entra_error(400, 7000112, f"Application '{client_id}' is disabled", "unauthorized_client")
        if one("client_assertion"):
            self.check_assertion(application, one("client_assertion_type"), one("client_assertion"))
        elif not secrets.compare_digest(one("client_secret"), application["secret"]):
            raise entra_error(401, 7000215, "Invalid client secret provided")
        elif application["expired"]:
            raise entra_error(401, 7000222, "The provided client secret keys are expired")
        lifetime = application["lifetime"]
        return {
            "token_type": "Bearer", "expires_in": lifetime, "ext_expires_in": lifetime,
            "access_token": self.access_token(tenant, client_id, audience, lifetime),
        }

    def check_assertion(self, application, kind, assertion):
        import jwt

        try:
            claims = jwt.decode(assertion, options={"verify_signature": False})
        except jwt.PyJWTError:
            raise entra_error(401, 50027, "Invalid JWT token") from None
        if kind != EXCHANGE:
            raise entra_error(400, 900144, "The request body must contain the parameter client_assertion_type", "invalid_request")
        federated = application["federated"]
        if not federated:
            raise entra_error(401, 70025, "The client has no configured federated identity credentials")
        if claims.get("iss") not in [issuer for issuer, _, _ in federated]:
            raise entra_error(401, 700211, f"No matching federated identity record found for presented assertion issuer '{claims.get('iss')}'")
        if claims.get("aud") not in [audience for _, _, audience in federated]:
            raise entra_error(401, 700212, f"No matching federated identity record found for presented assertion audience '{claims.get('aud')}'")
        if (claims.get("iss"), claims.get("sub"), claims.get("aud")) not in federated:
            raise entra_error(401, 700213, f"No matching federated identity record found for presented assertion subject '{claims.get('sub')}'")
        try:
            public = self.issuers[claims["iss"]].public_key()
            jwt.decode(assertion, public, algorithms=["RS256"], audience=claims["aud"], issuer=claims["iss"],
                       options={"require": ["exp", "iat", "sub"]})
        except jwt.ExpiredSignatureError:
            raise entra_error(401, 700024, "Client assertion is not within its valid time range") from None
        except (jwt.PyJWTError, KeyError):
            raise entra_error(401, 700027, "The client assertion failed signature validation") from None

    # vaults

    def caller(self, host, place, header):
        """The client id of whoever asks."""
        import jwt

        audience = next(audience for domain, audience in VAULT_DOMAINS.items() if host.endswith(domain))
        challenge = {"www-authenticate": f'Bearer authorization="https://login.microsoftonline.com/{place["tenant"]}", resource="{audience}"'}

        def refused(message):
            answer = vault_error(401, "Unauthorized", message)
            answer.headers = challenge
            return answer

        if not header.startswith("Bearer "):
            raise refused("AKV10000: Request is missing a Bearer or PoP token.")
        try:
            claims = jwt.decode(header.removeprefix("Bearer "), self.signing.public_key(), algorithms=["RS256"],
                                audience=audience, options={"require": ["exp", "tid", "appid"]})
        except jwt.InvalidAudienceError:
            raise refused("AKV10022: Invalid audience.") from None
        except jwt.PyJWTError:
            raise refused("AKV10015: Error validating token.") from None
        if claims["tid"] != place["tenant"]:
            raise refused("AKV10032: Invalid issuer.")
        return claims["appid"]

    def vault(self, host, method, path, authorization, body):
        from azure.keyvault.keys._generated import models

        with self.lock:
            place = self.vaults.get(host)
        if place is None:
            raise vault_error(404, "VaultNotFound", "A vault with this name was not found")
        parts = path.strip("/").split("/")  # a request for the newest version has an empty part
        operation = parts[-1].lower() if method == "POST" else "get"
        if method == "POST":
            parts.pop()
        parts += [""] * (3 - len(parts))
        self.note(host=host, operation=operation, version=parts[2], authenticated=bool(authorization), body=bool(body))
        fault = repeating(self.fault(host, operation), authorization.removeprefix("Bearer "))
        apply(fault)
        client_id = self.caller(host, place, authorization)
        action = {"wrapkey": "wrap", "unwrapkey": "unwrap", "get": "read"}.get(operation)
        if parts[0] != "keys" or action is None or len(parts) != 3:
            raise vault_error(400, "BadParameter", "Method does not exist")
        name = parts[1].lower()
        with self.lock:
            granted = place["grants"].get((name, client_id), set())
            versions = list(place["keys"].get(name, []))
        if action not in granted:
            raise vault_error(403, "Forbidden", f'Caller is not authorized to perform action on resource.\r\nCaller: appid={client_id}\r\nAction: "keys/{action}"', "ForbiddenByRbac")
        found = [key for key in versions if parts[2] in ("", key.version)]
        if not found:
            raise vault_error(404, "KeyNotFound", f"A key with (name/id) {parts[1]}/{parts[2]} was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command.")
        key = found[-1]
        kid = fault.get("kid") or f"https://{host}/keys/{parts[1]}/{key.version}"
        if action == "read":
            return self.bundle(models, kid, key)
        if not key.enabled and (action == "unwrap" or not key.kty.startswith("RSA")):
            raise vault_error(403, "Forbidden", f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled")
        if action == "wrap" and key.expires is not None and key.expires <= time.time():
            raise vault_error(403, "Forbidden", f"Operation {operation} is not allowed on an expired key.", "KeyExpired")
        try:
            asked = models.KeyOperationsParameters(json.loads(body))
            value = getattr(key, action)(asked.algorithm, asked.value)
        except Exception as error:  # whatever cryptography calls it
            raise vault_error(400, "BadParameter", f"The parameter is incorrect ({type(error).__name__}).") from None
        answer = models.KeyOperationResult({})
        answer.kid, answer.result = kid, value
        return answer

    def bundle(self, models, kid, key):
        operations = ["wrapKey", "unwrapKey", "encrypt", "decrypt"]
        web = models.JsonWebKey(kid=kid, kty=key.kty, key_ops=operations)
        if key.kty.startswith("RSA"):
            numbers = key.material.public_key().public_numbers()
            web.n = numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")
            web.e = numbers.e.to_bytes(3, "big")
        return models.KeyBundle(key=web, attributes=models.KeyAttributes(enabled=key.enabled))


def repeating(fault, token):
    said = json.dumps(fault).replace("@TOKEN@", token).replace("@SIGNATURE@", token.split(".")[-1])
    return json.loads(said)


def apply(fault):
    time.sleep(fault.get("delay_ms", 0) / 1000)
    if fault.get("drop"):
        raise ConnectionAbortedError
    if "status" in fault:
        raise Refused(fault["status"], fault.get("body", ""), fault.get("headers"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one packet: none waits for another's acknowledgement.
    wbufsize = -1
    azure = None

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except (OSError, ssl.SSLError):
            pass  # whoever called has gone

    def body(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def respond(self, status, body, headers=None):
        from azure.keyvault.keys._generated._utils.model_base import SdkJSONEncoder

        text = body if isinstance(body, str) else json.dumps(body, cls=SdkJSONEncoder)
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("content-length", str(len(data)))
        self.send_header("x-ms-request-id", str(uuid.uuid4()))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def run(self, answer):
        try:
            self.respond(200, answer())
        except Refused as refused:
            self.respond(refused.status, refused.body, refused.headers)
        except ConnectionAbortedError:
            self.close_connection = True
            self.connection.close()


class Services(Handler):
    """Vaults and Entra ID, told apart by name."""

    def do_GET(self):
        self.both("GET")

    def do_POST(self):
        self.both("POST")

    def both(self, method):
        host = self.headers.get("host", "").split(":")[0]
        path, body = urlsplit(self.path).path, self.body()
        if any(host.endswith(domain) for domain in VAULT_DOMAINS):
            authorization = self.headers.get("authorization", "")
            self.run(lambda: self.azure.vault(host, method, path, authorization, body))
        else:
            self.run(lambda: self.entra(method, path, body))

    def entra(self, method, path, body):
        tenant, _, rest = path.strip("/").partition("/")
        if method == "POST" and rest == "oauth2/v2.0/token":
            form = parse_qs(body.decode())
            kind = "assertion" if "client_assertion" in form else "secret"
            self.azure.note(host="entra", operation="token", tenant=tenant, proof=kind)
            apply(self.azure.fault("entra", "token"))
            return self.azure.token(tenant, form)
        if method == "GET" and rest == "v2.0/.well-known/openid-configuration":
            base = f"https://{self.headers['host']}/{tenant}"
            return {"issuer": f"{base}/v2.0", "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize"}
        raise Refused(404, {"error": "not_found"})


class OwnersSide(Handler):
    def do_POST(self):
        action = self.path.removeprefix("/control/")
        said = json.loads(self.body() or "{}")
        self.run(lambda: self.azure.control(action, said))

    def do_GET(self):
        self.run(self.managed_identity)

    def managed_identity(self):
        """As App Service gives out tokens; `expires_on` is a text there."""
        url = urlsplit(self.path)
        if url.path != "/msi/token":
            raise Refused(404, {"error": "not_found"})
        apply(self.azure.fault("platform", "msi"))
        asked = parse_qs(url.query)
        if self.headers.get("x-identity-header") != "the-machine" or self.azure.identity is None:
            raise Refused(401, {"statusCode": 401, "message": "Unauthorized"})
        tenant, client_id = self.azure.identity
        if asked.get("client_id", [client_id]) != [client_id]:
            raise Refused(400, {"statusCode": 400, "message": "No User Assigned or Delegated Managed Identity found for specified ClientId"})
        resource = asked["resource"][0]
        return {"access_token": self.azure.access_token(tenant, client_id, resource, 3600), "resource": resource,
                "expires_on": str(int(time.time()) + 3600), "token_type": "Bearer", "client_id": client_id}


def certify():
    """An authority that only who is told to trusts, and a certificate of it for the names that are served: PEM texts."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)
    name = lambda text: x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])

    def begin(subject, key):
        return (
            x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("loopback authority"))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        )

    usage = dict.fromkeys(
        ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"], False)
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = (
        begin("loopback authority", authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    names = [x509.DNSName(f"*{domain}") for domain in VAULT_DOMAINS] + [
        x509.DNSName("login.microsoftonline.com"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = (
        begin("loopback", own)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**usage, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return root.public_bytes(pem).decode(), leaf.public_bytes(pem) + private


def serve(directory=None, port=0, https_port=0):
    Handler.azure = Azure() if directory is None else Azure.kept_in(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(Handler.azure.chain)
        file.flush()
        context.load_cert_chain(file.name)
    ThreadingHTTPServer.daemon_threads = True
    services = ThreadingHTTPServer(("127.0.0.1", int(https_port)), Services)
    # The handshake is the connection's own thread's business.
    services.socket = context.wrap_socket(services.socket, server_side=True, do_handshake_on_connect=False)
    owners = ThreadingHTTPServer(("127.0.0.1", int(port)), OwnersSide)
    threading.Thread(target=services.serve_forever, daemon=True).start()
    peer = f"a server on Microsoft's published models (azure-keyvault-keys {importlib.metadata.version('azure-keyvault-keys')})"
    ports = {"port": owners.server_port, "https_port": services.server_port}
    print(json.dumps({"peer": peer, **ports, "certificate": Handler.azure.authority}), flush=True)
    owners.serve_forever()


def client():
    """Microsoft's client wraps or unwraps. Says by which key identifier, and what came out."""
    import urllib3.util.connection
    from azure.identity import ClientAssertionCredential, ClientSecretCredential
    from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

    said = json.loads(sys.stdin.readline())
    port = said["https_port"]
    connect = urllib3.util.connection.create_connection
    # Names are Azure's; the one machine that answers for all of them is this one.
    urllib3.util.connection.create_connection = lambda _address, *rest, **more: connect(("127.0.0.1", port), *rest, **more)
    options = {"connection_verify": said["ca_file"], "disable_instance_discovery": True}
    if "assertion" in said:
        proof = lambda: said["assertion"]
        credential = ClientAssertionCredential(said["tenant"], said["client_id"], proof, **options)
    else:
        credential = ClientSecretCredential(said["tenant"], said["client_id"], said["secret"], **options)
    key = CryptographyClient(said["key_id"], credential, connection_verify=said["ca_file"])
    algorithm, value = KeyWrapAlgorithm(said["algorithm"]), base64.b64decode(said["value"])
    if said["operation"] == "wrap":
        result = key.wrap_key(algorithm, value)
        out = result.encrypted_key
    else:
        result = key.unwrap_key(algorithm, value)
        out = result.key
    print(json.dumps({"key_id": result.key_id, "value": base64.b64encode(out).decode()}), flush=True)


def end_with_parent():
    def wait():
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        socket.setdefaulttimeout(120)
        end_with_parent()
        serve(*sys.argv[2:])
    else:
        client()
