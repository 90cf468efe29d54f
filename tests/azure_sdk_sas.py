"""Signs what a SAS says with Azure's own SDK, and tells whether the signature is the one it has.

    ACCOUNT_KEY=... SAS=... azure_sdk_sas.py ACCOUNT CONTAINER

Needs azure-storage-blob, which tests/run installs. What the SAS says is read from it and handed to the SDK, which builds the text to
sign by itself. The two secrets come in the environment, and nothing of them is printed.
"""

import os
import sys
from urllib.parse import parse_qs

from azure.storage.blob import AccountSasPermissions, ContainerSasPermissions, ResourceTypes
from azure.storage.blob._shared.models import Services
from azure.storage.blob._shared_access_signature import BlobSharedAccessSignature


def main() -> int:
    account, container = sys.argv[1:]
    fields = {name: value for name, [value] in parse_qs(os.environ["SAS"], strict_parsing=True).items()}
    signer = BlobSharedAccessSignature(account, account_key=os.environ["ACCOUNT_KEY"])
    # The SDK signs for its own version; the token is of an older one on purpose.
    signer.x_ms_version = fields["sv"]
    common = {"expiry": fields["se"], "start": fields.get("st"), "ip": fields.get("sip"), "protocol": fields.get("spr")}
    if "srt" in fields:
        signed = signer.generate_account(
            services=Services.from_string(fields["ss"]),
            resource_types=ResourceTypes.from_string(fields["srt"]),
            permission=AccountSasPermissions.from_string(fields["sp"]),
            **common,
        )
    else:
        signed = signer.generate_container(container, permission=ContainerSasPermissions.from_string(fields["sp"]), **common)
    theirs = {name: value for name, [value] in parse_qs(signed).items()}
    differing = sorted(name for name in theirs.keys() | fields.keys() if theirs.get(name) != fields.get(name))
    print("the same signature" if not differing else f"these differ: {', '.join(differing)}")
    return 0 if not differing else 1


sys.exit(main())
