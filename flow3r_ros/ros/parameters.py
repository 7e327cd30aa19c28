"""ROS parameters from the configuration tree: names `group.field`, descriptions, ranges and choices
come from `config`.

Fields marked `runtime` may be set at any time, everything else while the node is unconfigured: it
is read at `configure`. A wrong value is refused with the reason that pydantic gives.
"""

from __future__ import annotations

import sys
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from flow3r_ros.config import Config, is_runtime, walk
from flow3r_ros.errors import ConfigError
from flow3r_ros.mappings import first_fault, set_dotted

LARGEST_INTEGER = 2**63 - 1
OURS_BESIDE_THE_TREE = ("autostart", "use_sim_time", "start_type_description_service")


def declare_parameters(node: Node) -> Config:
    """Declare every setting on the node and return the configuration that the given values make.

    Raises ConfigError naming the parameter when a value has the wrong type or lies outside its
    range.
    """
    tree: dict[str, dict[str, Any]] = {}
    for group, name, field in walk():
        dotted = f"{group}.{name}"
        try:
            parameter = node.declare_parameter(dotted, field.default, _descriptor(field))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            given = node._parameter_overrides[dotted].value
            expected = f"{type(field.default).__name__}{_range_in_words(field)}"
            if type(given) is int and isinstance(field.default, float):
                expected += f"; write {given}.0"
            raise ConfigError(
                f"parameter {dotted}: {given!r} is not allowed, expected {expected}",
                "see docs/parameters.md",
            ) from error
        tree.setdefault(group, {})[name] = parameter.value
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"parameter {first_fault(error)}", "see docs/parameters.md") from error


def unknown_overrides(node: Node) -> list[str]:
    """Names given at start (YAML or -p) that nobody declares: usually a spelling mistake."""
    known = {f"{group}.{name}" for group, name, _ in walk()} | set(OURS_BESIDE_THE_TREE)
    return sorted(
        name
        for name in node._parameter_overrides
        if name not in known and not name.startswith("qos_overrides.")
    )


def apply_changes(
    config: Config, parameters: list[Parameter], unconfigured: bool
) -> SetParametersResult:
    """Try the changes on a copy and, when each is valid and none contradicts another setting, make
    them in `config`; otherwise refuse with the reason, for instance that a setting is fixed once
    the node is configured."""
    changes = [parameter for parameter in parameters if _is_setting(parameter.name)]
    fixed = {f"{group}.{name}" for group, name, field in walk() if not is_runtime(field)}
    for parameter in changes:
        if parameter.name in fixed and not unconfigured:
            reason = (
                f"{parameter.name} is read at configure: take the node down to unconfigured first "
                "(ros2 lifecycle set NODE deactivate, then cleanup)"
            )
            return SetParametersResult(successful=False, reason=reason)
    tree = config.model_dump()
    for parameter in changes:
        set_dotted(tree, parameter.name, parameter.value)
    try:
        changed = Config.model_validate(tree)
    except ValidationError as error:
        return SetParametersResult(successful=False, reason=first_fault(error))
    for parameter in changes:
        group, name = parameter.name.split(".")
        setattr(getattr(config, group), name, getattr(getattr(changed, group), name))
    return SetParametersResult(successful=True)


def _is_setting(dotted: str) -> bool:
    group, _, name = dotted.partition(".")
    return group in Config.model_fields and "." not in name


def _descriptor(field: FieldInfo) -> ParameterDescriptor:
    """Description, choices and range of one field; when it may be set stands at the end of the
    description.

    ROS ranges include their ends; an exclusive bound is declared inclusive here and kept by the
    validation on top.
    """
    when = "" if is_runtime(field) else " (read at configure)"
    descriptor = ParameterDescriptor(description=f"{field.description}{when}")
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if choices:
        descriptor.additional_constraints = "one of " + ", ".join(map(str, choices))
    low, high = _bounds(field)
    if low is None and high is None:
        return descriptor
    if field.annotation is float:
        descriptor.floating_point_range = [
            FloatingPointRange(
                from_value=float(low) if low is not None else -sys.float_info.max,
                to_value=float(high) if high is not None else sys.float_info.max,
            )
        ]
    elif field.annotation is int:
        descriptor.integer_range = [
            IntegerRange(
                from_value=int(low) if low is not None else -LARGEST_INTEGER,
                to_value=int(high) if high is not None else LARGEST_INTEGER,
            )
        ]
    return descriptor


def _bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    low = high = None
    for rule in field.metadata:
        low = next(
            (
                value
                for value in (getattr(rule, "ge", None), getattr(rule, "gt", None))
                if value is not None
            ),
            low,
        )
        high = next(
            (
                value
                for value in (getattr(rule, "le", None), getattr(rule, "lt", None))
                if value is not None
            ),
            high,
        )
    return low, high


def _range_in_words(field: FieldInfo) -> str:
    low, high = _bounds(field)
    return (
        ""
        if low is None and high is None
        else f" from {'-inf' if low is None else low} to {'inf' if high is None else high}"
    )
