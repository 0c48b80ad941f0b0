"""What the launcher has ready before it and the container part: the network's plan, the machine to show, the orders.

What few containers ask for is imported where it is asked for.
"""

from __future__ import annotations

import os

from cgagent.errors import EXIT_RUN_FAILED, CgagentError
from cgagent.launch.channel import Orders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cgagent.launch.cgroups import Cgroups
    from cgagent.launch.network import Plan
    from cgagent.launch.shown.scene import Scene
    from cgagent.launch.spec import Spec


def network_plan(spec: Spec) -> Plan | None:
    """The network to set up outside, checked before anything is made; None for none.

    Raises:
        CgagentError: it is not for this user.
    """
    if spec.net != "veth":
        return None
    from cgagent.launch.network import Plan, requirements

    if os.geteuid() != 0:
        raise CgagentError("--net veth is not for an ordinary user", requirements(), EXIT_RUN_FAILED)
    return Plan(rate=spec.net_rate, nat=spec.net_nat, dns=tuple(spec.dns))


def scene_to_show(spec: Spec) -> Scene | None:
    """The machine to show, if not this one; its limits become the container's if they are to bind."""
    if spec.shown is None:
        return None
    from cgagent.host import Host
    from cgagent.launch.shown.scene import Scene

    scene = Scene(spec.shown, Host(), spec.time_offset or 0)
    if spec.shown.replay is not None and spec.shown.enforce and scene.capture is not None:
        from cgagent.launch.shown.host import ShownHost, enforced

        spec.resources = enforced(ShownHost(scene, scene.capture))
    return scene


def orders_for(spec: Spec, cgroups: Cgroups, plan: Plan | None, scene: Scene | None) -> Orders:
    """What the container is told."""
    resolver, environ = "", dict[str, str]()
    if plan is not None:
        from cgagent.launch.network import resolv_conf

        resolver = resolv_conf(plan)
    if spec.go_env:
        from cgagent.launch.goenv import decided

        environ = decided(cgroups, spec.environ, scene)
    orders = Orders.of(cgroups, resolver, environ, _seccomp(spec))
    if scene is not None:
        from cgagent.launch.shown.supervisor import Supervisor

        orders.supervisor = Supervisor(scene)
    return orders


def _seccomp(spec: Spec) -> bytes:
    """The filter's program; empty for none."""
    if not spec.security.seccomp:
        return b""
    from cgagent.launch.seccomp import default_filter, opened_by

    return default_filter(opened_by(spec.security.capabilities))
