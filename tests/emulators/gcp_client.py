"""Google's own client of Cloud KMS, over REST: reads one JSON object on standard input, prints one.

    {"endpoint": "http://127.0.0.1:…", "credentials": {…}, "calls": [{"encrypt": {…}}, {"decrypt": {…}}]}

Credentials are {"token": "…"}, {"service_account": {the key's file}} or {"external_account": {the file of gcloud iam
workload-identity-pools create-cred-config}}. Bytes are base64. Each call answers {"ok": {…}} or {"error": "its class", "message": "…"}.
"""

import base64
import json
import sys

from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth import identity_pool
from google.auth.exceptions import GoogleAuthError
from google.cloud import kms_v1
from google.oauth2 import credentials, service_account

SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


def credentials_of(given):
    if "token" in given:
        return credentials.Credentials(given["token"])
    if "service_account" in given:
        return service_account.Credentials.from_service_account_info(given["service_account"], scopes=SCOPES)
    return identity_pool.Credentials.from_info(given["external_account"], scopes=SCOPES)


def encrypt(client, name, plaintext, aad):
    answer = client.encrypt(
        request={"name": name, "plaintext": base64.b64decode(plaintext), "additional_authenticated_data": base64.b64decode(aad)},
        retry=None,
    )
    return {"name": answer.name, "ciphertext": base64.b64encode(answer.ciphertext).decode()}


def decrypt(client, name, ciphertext, aad):
    answer = client.decrypt(
        request={"name": name, "ciphertext": base64.b64decode(ciphertext), "additional_authenticated_data": base64.b64decode(aad)},
        retry=None,
    )
    return {"plaintext": base64.b64encode(answer.plaintext).decode(), "used_primary": answer.used_primary}


def call(client, name, arguments):
    try:
        return {"ok": {"encrypt": encrypt, "decrypt": decrypt}[name](client, **arguments)}
    except (exceptions.GoogleAPICallError, GoogleAuthError) as error:
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    client = kms_v1.KeyManagementServiceClient(
        credentials=credentials_of(given["credentials"]),
        transport="rest",
        client_options=ClientOptions(api_endpoint=given["endpoint"]),
    )
    answers = [call(client, *item) for asked in given["calls"] for item in asked.items()]
    print(json.dumps(answers))
