"""A service that answers when it can, and not when it is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile


class DeferredService:
    """A ROS service whose responses are sent later, in any order.

    rclpy sends what the callback returns, at once; a callback that is a coroutine and waits would
    be polled without pause. So the callback returns the request, and what rclpy takes for sending
    it keeps the address that the answer is to go to.

    Args:
        node: which offers the service.
        kind: of the service.
        name: of the service.
        on_request: called with a request and a function that sends its response; once.
        depth: requests (and responses) that the middleware keeps.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        name: str,
        on_request: Callable[[Any, Callable[[Any], None]], None],
        depth: int,
    ) -> None:
        service = node.create_service(
            kind, name, lambda request, response: request, qos_profile=QoSProfile(depth=depth)
        )
        send = service.send_response

        def take(request: Any, address: Any) -> None:
            on_request(request, lambda response: send(response, address))

        service.send_response = take
