"""Settings that a later program adds."""

from dataclasses import asdict, dataclass

from ifailsense_ros.train.defaults import changed_fields, with_defaults


@dataclass(frozen=True)
class Before:
    steps: int
    kinds: tuple = ("a",)


@dataclass(frozen=True)
class Inner:
    more: bool = False


@dataclass(frozen=True)
class After:
    steps: int
    kinds: tuple = ("a",)
    inner: Inner = Inner()
    several: tuple = (Inner(), 2)


def test_a_setting_that_is_added_at_its_default_is_no_other_recipe():
    assert changed_fields(Before(3)) == changed_fields(After(3)) == {"steps": 3}
    changed = changed_fields(After(3, inner=Inner(more=True)))
    assert changed == {"steps": 3, "inner": {"more": True}}


def test_what_was_written_gets_the_fields_that_came_later_and_keeps_its_own():
    whole = with_defaults({**asdict(Before(3)), "of_old": 1}, After(5, inner=Inner(more=True)))
    assert whole == {
        "steps": 3,
        "kinds": ("a",),
        "of_old": 1,
        "inner": {"more": False},
        "several": [{"more": False}, 2],
    }
    assert with_defaults({"inner": {}}, After(1))["inner"] == {"more": False}
    assert "steps" not in with_defaults({}, After(1))  # it has no default
    assert with_defaults("no settings", After(1)) == "no settings"
