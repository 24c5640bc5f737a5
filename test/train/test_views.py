"""Which tokens a view leaves, whatever the montage."""

import numpy as np
import pytest

from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.train.views import (
    ENDS,
    EXO_ENDS,
    GRIPPER,
    MONTAGE,
    VIEWS,
    shown_features,
    tokens_of_view,
)


@pytest.mark.parametrize(("num_pov", "num_keyframes"), [(1, 1), (1, 4), (2, 1), (2, 4), (2, 8)])
def test_a_view_is_made_of_whole_cells(num_pov, num_keyframes):
    geometry = MontageGeometry(num_pov, num_keyframes, 28, 42)
    tokens = 1 + np.arange(2 * num_pov * 3 * num_keyframes).reshape(num_pov, 2, num_keyframes, 3)
    ends = tokens[:, :, [0] if num_keyframes == 1 else [0, -1]]
    views = ((MONTAGE, tokens), (ENDS, ends), (EXO_ENDS, ends[:1]), (GRIPPER, tokens[-1:]))
    for view, shown in views:
        assert tokens_of_view(view, geometry).tolist() == [0, *sorted(shown.ravel().tolist())]


def test_a_patch_on_the_border_belongs_to_the_cell_of_its_centre():
    geometry = MontageGeometry(1, 2, 14, 21)  # three patches wide, two cells
    assert tokens_of_view(ENDS, geometry).tolist() == [0, 1, 2, 3]
    assert tokens_of_view(EXO_ENDS, MontageGeometry(2, 1, 21, 14)).tolist() == [0, 1]


def test_an_unknown_view_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="'first': choose from " + ", ".join(VIEWS)):
        tokens_of_view("first", MontageGeometry(2, 4, 28, 28))


def test_features_are_those_of_the_episodes_and_tokens():
    features = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    assert np.array_equal(shown_features(features, [1, 0], None), features[[1, 0]])
    assert np.array_equal(shown_features(features, [1], np.array([0, 2])), features[1:, [0, 2]])
    assert shown_features(features, [0], None).dtype == np.float32
