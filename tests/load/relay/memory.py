"""One copy of the bytes by one thread, which no transfer with a copy can do without.

`python -m tests.load.relay.memory`
"""

from __future__ import annotations

import numpy as np
from tests.load.pool import Pool
from tests.load.relay.rounds import Round, Seconds, one_by_one, serve


def main() -> None:
    source, target = Pool(), Pool()

    def measure(round_: Round) -> Seconds:
        pieces = zip(
            target.pieces(round_.size, round_.messages), source.pieces(round_.size, round_.messages), strict=True
        )
        return one_by_one(lambda pair: np.copyto(*pair), pieces)

    serve("ready", measure)


if __name__ == "__main__":
    main()
