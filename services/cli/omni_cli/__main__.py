"""`omni`, also as `python -m omni_cli`."""

from __future__ import annotations

from omni_cli.app import app


def main() -> None:
    app()


if __name__ == "__main__":
    main()
