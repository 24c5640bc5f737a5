"""The SROS2 policy: its form, its one rule, and that it leaves the real monitor what it needs."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from fnmatch import fnmatchcase

import pytest
from ros_peer import ROOT

POLICY = ROOT / "config" / "security" / "policy.xml"
MONITOR = "/ifailsense/monitor"
VERDICTS = ("/monitor/verdict", "/monitor/verdict/provisional", "/monitor/failure")

FORM = {
    "policy": ({"version"}, set(), {"enclaves"}),
    "enclaves": (set(), set(), {"enclave"}),
    "enclave": ({"path"}, set(), {"profiles"}),
    "profiles": (set(), {"type"}, {"profile"}),
    "profile": ({"ns", "node"}, set(), {"topics", "services", "actions"}),
    "topics": (set(), {"publish", "subscribe"}, {"topic"}),
    "services": (set(), {"reply", "request"}, {"service"}),
    "actions": (set(), {"call", "execute"}, {"action"}),
    "topic": (set(), set(), set()),
    "service": (set(), set(), set()),
    "action": (set(), set(), set()),
}
"""Of each element: attributes it must have, others it may have, elements in it (at least one): what
sros2's policy.xsd, version 0.2.0, says, less XInclude and metadata, which we do not use.
"""


def faults_of_form(element: ElementTree.Element) -> list[str]:
    """What policy.xsd would refuse."""
    if element.tag not in FORM:
        return [f"<{element.tag}> is unknown"]
    required, optional, inside = FORM[element.tag]
    given = set(element.attrib)
    faults = [f"<{element.tag}> lacks {name}" for name in required - given]
    faults += [f"<{element.tag}> has {name}" for name in given - required - optional]
    faults += [
        f"<{element.tag}> {name}={element.get(name)!r}"
        for name in given & optional - {"type"}
        if element.get(name) not in ("ALLOW", "DENY")
    ]
    if inside:
        faults += [f"<{element.tag}> is empty"] if not len(element) else []
        faults += [f"<{c.tag}> in <{element.tag}>" for c in element if c.tag not in inside]
    elif not (element.text or "").strip():
        faults.append(f"<{element.tag}> is empty")
    return faults + [fault for child in element for fault in faults_of_form(child)]


def full_name(name: str, namespace: str, node: str) -> str:
    """As sros2's permissions.xsl fills names in."""
    namespace = namespace.rstrip("/") + "/"
    if name.startswith("/"):
        return name
    return f"{namespace}{node}{name[1:]}" if name.startswith("~") else namespace + name


def allowed(root: ElementTree.Element, group: str, verb: str) -> dict[str, list[str]]:
    """For each enclave, the patterns of full names for which it is allowed e.g. ("topics",
    "publish"). Service and action names never meet topic names: DDS has prefixes for them.
    """
    patterns: dict[str, list[str]] = {}
    for enclave in root.iter("enclave"):
        rules = patterns.setdefault(enclave.get("path"), [])
        for profile in enclave.iter("profile"):
            for block in profile.iter(group):
                if block.get(verb) == "ALLOW":
                    where = profile.get("ns"), profile.get("node")
                    rules += [full_name(item.text.strip(), *where) for item in block]
    return patterns


def verdict_publishers(root: ElementTree.Element) -> dict[str, set[str]]:
    """For each verdict topic, the enclaves that may publish it. `*` in a rule stands for anything,
    as in DDS permissions.
    """
    rules = allowed(root, "topics", "publish")
    return {
        topic: {e for e, patterns in rules.items() if any(fnmatchcase(topic, p) for p in patterns)}
        for topic in VERDICTS
    }


@pytest.fixture
def policy() -> ElementTree.Element:
    return ElementTree.parse(POLICY).getroot()


def test_form(policy):
    assert faults_of_form(policy) == []
    assert policy.get("version") == "0.2.0"
    paths = [enclave.get("path") for enclave in policy.iter("enclave")]
    assert len(set(paths)) == len(paths)
    assert not [b for b in policy.iter() if "DENY" in b.attrib.values()], "allow only: the rest is"


def test_no_comment_stands_between_the_enclaves():
    """`ros2 security generate_artifacts` takes every child of <enclaves> for an enclave."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    root = ElementTree.parse(POLICY, parser).getroot()
    assert {child.tag for child in root.find("enclaves")} == {"enclave"}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('publish="ALLOW"', 'publish="YES"', "<topics> publish='YES'"),
        ('publish="ALLOW"', 'send="ALLOW"', "<topics> has send"),
        (' node="monitor"', "", "<profile> lacks node"),
        ("<topic>~/verdict</topic>", "<topic> </topic>", "<topic> is empty"),
        ("<topic>~/verdict</topic>", "<service>~/verdict</service>", "<service> in <topics>"),
        ("<topic>~/verdict</topic>", "<name>~/verdict</name>", "<name> is unknown"),
    ],
)
def test_a_planted_fault_of_form_is_found(old, new, fault):
    text = POLICY.read_text()
    assert old in text
    assert fault in faults_of_form(ElementTree.fromstring(text.replace(old, new, 1)))


def test_only_the_monitor_publishes_verdicts(policy):
    assert verdict_publishers(policy) == {topic: {MONITOR} for topic in VERDICTS}


@pytest.mark.parametrize(
    "pattern", ["/monitor/verdict", "/monitor/failure", "/monitor/*", "/*", "*", "/*/verdict"]
)
def test_a_planted_publisher_is_found(policy, pattern):
    (planner,) = [e for e in policy.iter("enclave") if e.get("path") == "/ifailsense/planner"]
    topics = ElementTree.SubElement(planner.find("profiles/profile"), "topics", publish="ALLOW")
    ElementTree.SubElement(topics, "topic").text = pattern
    assert set().union(*verdict_publishers(policy).values()) == {MONITOR, "/ifailsense/planner"}


def test_a_node_in_the_monitors_place_is_found(policy):
    """`~/verdict` of another enclave is the monitor's if it gives its node the same name."""
    (cameras,) = [e for e in policy.iter("enclave") if e.get("path") == "/ifailsense/cameras"]
    profile = cameras.find("profiles/profile")
    profile.set("node", "monitor")
    ElementTree.SubElement(profile.find("topics"), "topic").text = "~/verdict"
    assert verdict_publishers(policy)["/monitor/verdict"] == {MONITOR, "/ifailsense/cameras"}


def test_the_planner_says_when_and_hears_what_came_of_it(policy):
    publish, subscribe = (allowed(policy, "topics", verb) for verb in ("publish", "subscribe"))
    assert {"/instruction", "/episode"} <= set(publish["/ifailsense/planner"])
    assert set(VERDICTS) <= set(subscribe["/ifailsense/planner"])
    assert allowed(policy, "actions", "call")["/ifailsense/planner"] == ["/monitor/check_episode"]
    assert allowed(policy, "actions", "execute")[MONITOR] == ["/monitor/check_episode"]


def test_only_the_shared_detector_answers_the_monitors(policy):
    name = "/detector/judge_episode"
    replies, requests = (allowed(policy, "services", verb) for verb in ("reply", "request"))
    may_answer = {e for e, rules in replies.items() if any(fnmatchcase(name, r) for r in rules)}
    assert may_answer == {"/ifailsense/detector"}
    assert name in requests[MONITOR]


@pytest.mark.parametrize("transport", ["raw", "compressed"])
def test_the_monitor_may_do_what_the_real_one_does(policy, peer_factory, start_monitor, transport):
    """Asked from the running node's graph, so that a new topic cannot be forgotten here."""
    peer = peer_factory(compressed=transport == "compressed")
    peer.connect(start_monitor(f"image_transport:={transport}", "use_sim_time:=true"))
    node = peer.node
    for group, verb, names_of in (
        ("topics", "publish", node.get_publisher_names_and_types_by_node),
        ("topics", "subscribe", node.get_subscriber_names_and_types_by_node),
        ("services", "reply", node.get_service_names_and_types_by_node),
        ("services", "request", node.get_client_names_and_types_by_node),
    ):
        patterns = allowed(policy, group, verb)[MONITOR]
        patterns += [f"{p}/_action/*" for p in allowed(policy, "actions", "execute")[MONITOR]]
        names = {name for name, _ in names_of("monitor", "/")}
        assert names or verb == "request", verb
        assert {n for n in names if not any(fnmatchcase(n, p) for p in patterns)} == set()
