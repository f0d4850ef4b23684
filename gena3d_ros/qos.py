"""Quality of service of every topic; users may override all of it by parameters (`qos_overrides.*`)."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

IMAGE_DEPTH = 10
_RELIABILITY = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


def images(reliability: str = "reliable") -> QoSProfile:
    """Camera streams. `best_effort` meets any publisher but loses images above half a megabyte on the default
    transport of Fast DDS; `reliable` needs a reliable publisher."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=IMAGE_DEPTH, reliability=_RELIABILITY[reliability])


def latched(depth: int = 1) -> QoSProfile:
    """Results: reliable, and kept for those who come later."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def reliable(depth: int = 10) -> QoSProfile:
    """Small streams that nobody needs after the fact."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def transforms(reliability: str) -> QoSProfile:
    """/tf as we listen to it."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=100, reliability=_RELIABILITY[reliability])


def overridable(entity_id: str | None = None) -> QoSOverridingOptions:
    """Lets parameters `qos_overrides.<topic>.<publisher|subscription>[_<entity_id>].<policy>` override a profile."""
    return QoSOverridingOptions.with_default_policies(entity_id=entity_id)
