"""`python -m omni_stage.weights`, configured by OMNI_WEIGHTS_*: ends with 0 when the weights are there, else with 1 and
a sentence."""

from __future__ import annotations

import logging
from datetime import timedelta

from omni_common.deadline import Deadline
from omni_common.lifecycle import leave
from omni_common.settings import why_refused
from omni_common.telemetry.logs import configure_logs
from omni_stage.weights.errors import WeightsError
from omni_stage.weights.put import put_weights
from omni_stage.weights.settings import WeightsSettings

logger = logging.getLogger("omni_stage.weights")


def main() -> None:
    configure_logs("INFO", service="weights")
    try:
        settings = WeightsSettings()
    except ValueError as error:
        logger.error(why_refused(WeightsSettings, error))  # noqa: TRY400  # the sentence is all there is to say
        leave(1)
    configure_logs(settings.log_level, service="weights")
    try:
        put_weights(settings, Deadline.after(settings.deadline / timedelta(seconds=1)))
    except (WeightsError, OSError) as error:
        logger.error(str(error))  # noqa: TRY400  # the sentence is all there is to say
        leave(1)
    leave(0)


if __name__ == "__main__":
    main()
