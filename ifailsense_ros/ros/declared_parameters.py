"""The table of parameters as declared in a node: what was given, what is refused, what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.ros.parameters import PARAMETERS, Change, Parameter, allowed_text, objection


class DeclaredParameters:
    """Declares all parameters, and watches over their changes.

    A wrong value does not keep the node from starting: it is remembered, and `check` names it. So
    a managed node can be given a better one before it is configured again.

    Args:
        node: whose parameters they are.
        is_configured: whether the values are in use.
        table: of the parameters.
    """

    def __init__(
        self,
        node: Node,
        is_configured: Callable[[], bool],
        table: Mapping[str, Parameter] = PARAMETERS,
    ) -> None:
        self._node = node
        self._table = table
        self._is_configured = is_configured
        self._objections: dict[str, str] = {}
        self._changed = False
        for name, row in table.items():
            self._declare(name, row)
        for name in sorted(set(node._parameter_overrides) - set(table)):
            # Misspelt names would otherwise be passed over in silence.
            if name != "use_sim_time" and not name.startswith(("qos_overrides.", "start_type_")):
                node.get_logger().warning(f"parameter {name} is unknown and has no effect")
        node.add_on_set_parameters_callback(self._on_set)

    @property
    def values(self) -> dict[str, Any]:
        """All values, by name."""
        return {name: self._node.get_parameter(name).value for name in self._table}

    def check(self) -> None:
        """See that every value that was given is allowed.

        Raises:
            ConfigError: the first that is not, in one line that names it.
        """
        for text in self._objections.values():
            raise ConfigError(text)

    def take_changes(self) -> bool:
        """Whether anything was set since the last call."""
        changed, self._changed = self._changed, False
        return changed

    def _declare(self, name: str, row: Parameter) -> None:
        descriptor = _descriptor(row)
        try:
            value = self._node.declare_parameter(name, row.default, descriptor).value
            text = objection(name, value, row)
        except ParameterException:
            value = self._node._parameter_overrides[name].value
            text = objection(name, value, row)
            self._node.declare_parameter(name, row.default, descriptor, ignore_override=True)
        if text:
            self._objections[name] = text

    def _on_set(self, parameters: Sequence[RosParameter]) -> SetParametersResult:
        ours = [parameter for parameter in parameters if parameter.name in self._table]
        for parameter in ours:
            row = self._table[parameter.name]
            text = objection(parameter.name, parameter.value, row)
            text = text or self._too_late(parameter.name)
            if text:
                return SetParametersResult(successful=False, reason=text)
        for parameter in ours:
            self._objections.pop(parameter.name, None)
        # The values are in place only after this call.
        self._changed = self._changed or bool(ours)
        return SetParametersResult(successful=True)

    def _too_late(self, name: str) -> str:
        if self._table[name].change is Change.UNCONFIGURED and self._is_configured():
            return (
                f"parameter {name} can be changed only while the node is unconfigured: "
                "deactivate and clean up first"
            )
        return ""


def _descriptor(row: Parameter) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=row.description, read_only=row.change is Change.NEVER
    )
    if row.bounds is not None and isinstance(row.default, float):
        low, high = row.bounds
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif row.bounds is not None:
        low, high = (int(bound) for bound in row.bounds)
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    constraints = [f"May be set {row.change.value}."]
    if row.choices:
        constraints.insert(0, f"The value {allowed_text(row)}.")
    descriptor.additional_constraints = " ".join(constraints)
    return descriptor
