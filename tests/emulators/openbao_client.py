"""The vendor's own client for Python (hvac), for tests that look at a wrap from its owner's side.

Usage: openbao_client.py wrap|unwrap, with JSON on standard input: "address", "token", "namespace" (or null), "mount", "key",
"associated_data" in base64, and "plaintext" in base64 or "ciphertext". Prints the ciphertext, or the plaintext in base64.
"""

import json
import sys

import hvac

asked = json.load(sys.stdin)
client = hvac.Client(url=asked["address"], token=asked["token"], namespace=asked["namespace"])
client.session.trust_env = False
transit = client.secrets.transit
common = {
    "name": asked["key"],
    "mount_point": asked["mount"],
    "associated_data": asked["associated_data"],
}
if sys.argv[1] == "wrap":
    print(transit.encrypt_data(plaintext=asked["plaintext"], **common)["data"]["ciphertext"])
else:
    print(transit.decrypt_data(ciphertext=asked["ciphertext"], **common)["data"]["plaintext"])
