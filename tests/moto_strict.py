#!/usr/bin/env python3
"""moto's AWS server, made to refuse what AWS refuses.

    moto_strict.py [--port PORT] [--propagate SECONDS] [--host ADDRESS]
    PROPAGATE_S=2 moto_strict.py -p 5055

Needs `pip install 'moto[server]'`; tried with moto 5.2.5. One port serves IAM, STS and S3.

moto checks signatures and policies once authentication is switched on, and enforces the quota of two keys to a user. Two things
it lets pass that AWS does not, and a rotation's tests live on both:

* a key whose status is not Active still works;
* a fresh key works at once, everywhere.

Both are refused here, with the answer AWS gives to a key it does not know: InvalidClientTokenId (IAM, STS), InvalidAccessKeyId
(S3). Listing, disabling and deleting such a key by another one works as ever. Not simulated: throttling, lost answers, pages of
keys, the lag of GetAccessKeyLastUsed.

It starts without authentication, so that a test can make its users, policies and buckets and a key for itself. Then
`POST /moto-api/reset-auth` with the body `0` demands it from the first request on; the propagation delay counts from each key's
creation in either mode, so an administrator's key made there needs its seconds too. (`POST /moto-api/reset` forgets everything, and
`GET /moto-api/data.json` answers when the server is ready.)

The place to hook into is not a public part of moto. If it is gone, or no longer hooks, this program says so and ends with
status 1: a moto that refuses nothing would make every test against it worthless. The check is a rehearsal at start, on a key of its
own; what it made is forgotten before the server starts.
"""

import argparse
import datetime
import functools
import os
import sys

REHEARSAL_ACCOUNT = "999999999999"


def fail(why):
    """Ends the program, loudly."""
    import importlib.metadata

    try:
        version = importlib.metadata.version("moto")
    except importlib.metadata.PackageNotFoundError:
        version = "not installed"
    sys.exit(f"moto_strict: {why} (moto {version}); this wrapper must be adapted before its results mean anything")


try:
    from moto.core.utils import utcnow
    from moto.iam import access_control, iam_backends
    from moto.moto_api._internal.models import moto_api_backend
    from moto.server import main as serve
except ImportError as error:
    fail(f"cannot import what is hooked into: {error}")


def age_of(key):
    """Seconds since a key was made. moto writes UTC and leaves the zone away."""
    made, now = key.create_date, utcnow()
    if made.tzinfo is None:
        made = made.replace(tzinfo=datetime.timezone.utc)
    if now.tzinfo is None:
        now = now.replace(tzinfo=datetime.timezone.utc)
    return (now - made).total_seconds()


def is_known(key, propagate):
    """Whether AWS would know this key now."""
    return key.status == "Active" and age_of(key) >= propagate


def make_strict(propagate):
    """Lets the object moto makes for each signed request refuse a key that AWS would not know."""
    hooked, refusal = access_control.IAMUserAccessKey, access_control.CreateAccessKeyFailure
    lenient = hooked.__init__

    @functools.wraps(lenient)
    def strict(self, account_id, partition, access_key_id, headers):
        # First moto's own checks, so that an unknown id is refused in moto's own way.
        lenient(self, account_id, partition, access_key_id, headers)
        keys = (key for user in self.backend.list_users("/", None, None) for key in user.access_keys)
        for key in keys:
            if key.access_key_id == access_key_id and not is_known(key, propagate):
                raise refusal(reason="InvalidId")

    hooked.__init__ = strict


def rehearse(propagate):
    """Sees with its own eyes that a fresh key, an inactive one and an unknown one are refused, and a good one is not."""

    def is_refused(key_id):
        try:
            access_control.create_access_key(
                account_id=REHEARSAL_ACCOUNT, partition="aws", access_key_id=key_id, headers={}
            )
        except access_control.CreateAccessKeyFailure:
            return True
        return False

    iam = iam_backends[REHEARSAL_ACCOUNT]["aws"]
    user = "rehearsal"
    iam.create_user("us-east-1", user)
    try:
        key = iam.create_access_key(user_name=user)
        if is_refused(key.access_key_id) != (propagate > 0):
            fail("a fresh key is not treated as it should be")
        key.create_date -= datetime.timedelta(seconds=propagate + 1)
        if is_refused(key.access_key_id):
            fail("a good key is refused")
        iam.update_access_key(user, key.access_key_id, "Inactive")
        if not is_refused(key.access_key_id):
            fail("an inactive key is not refused")
        if not is_refused("AKIAUNKNOWNUNKNOWNXX"):
            fail("an unknown key is not refused")
    finally:
        # As POST /moto-api/reset: nobody is to meet the rehearsal's user.
        moto_api_backend.reset()


def arguments():
    parser = argparse.ArgumentParser(description="moto's server, made to refuse inactive keys and keys that are too young")
    parser.add_argument("-H", "--host", default="127.0.0.1", help="address to bind (127.0.0.1)")
    parser.add_argument("-p", "--port", type=int, default=5055, help="port to bind (5055)")
    parser.add_argument(
        "--propagate",
        type=float,
        default=os.environ.get("PROPAGATE_S", "0"),
        metavar="SECONDS",
        help="refuse keys younger than this (environment PROPAGATE_S, else 0)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    try:
        make_strict(options.propagate)
        rehearse(options.propagate)
    except Exception as error:  # whatever moto throws from its inside means that the inside has changed
        fail(f"the place to hook into has changed: {type(error).__name__}: {error}")
    serve(["-H", options.host, "-p", str(options.port)])
