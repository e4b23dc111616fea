"""`python -m omni_cli.chart [CHART]`: writes what of the chart is generated; `make generate`."""

from __future__ import annotations

import sys
from pathlib import Path

from omni_cli.chart.files import write


def main() -> None:
    chart = Path(sys.argv[1] if len(sys.argv) > 1 else "charts/omni")
    try:
        changed = write(chart)
    except (OSError, ValueError, LookupError) as error:
        raise SystemExit(f"The chart is not generated: {error}") from error
    for path in changed:
        print(path)


if __name__ == "__main__":
    main()
