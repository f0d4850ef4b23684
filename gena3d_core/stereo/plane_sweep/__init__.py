"""Multi-view plane-sweep stereo from posed colour views; no learned weights."""

from .config import PlaneSweepConfig
from .matcher import PlaneSweep

__all__ = ["PlaneSweep", "PlaneSweepConfig"]
