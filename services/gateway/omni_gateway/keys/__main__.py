"""`python -m omni_gateway.keys NAME`: a new key, told once, and the entry for the file of keys."""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m omni_gateway.keys", description=__doc__)
    parser.add_argument("name", help="whose key it is, for logs")
    parser.add_argument("--requests-per-minute", type=int, metavar="N")
    parser.add_argument("--concurrent-requests", type=int, metavar="N")
    chosen = parser.parse_args()
    key = f"sk-omni-{secrets.token_urlsafe(32)}"
    entry = {
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "requests_per_minute": chosen.requests_per_minute,
        "concurrent_requests": chosen.concurrent_requests,
    }
    # Apart, so that `> keys.json` makes the file and the key is only seen.
    sys.stderr.write(f"The key, which nobody can tell again: {key}\n")
    known = {name: value for name, value in entry.items() if value is not None}
    sys.stdout.write(json.dumps({"keys": {chosen.name: known}}) + "\n")


if __name__ == "__main__":
    main()
