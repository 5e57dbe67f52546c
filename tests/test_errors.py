# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import pytest

from tte.errors import DoesNotFit, FirmwareFault, TteError, UsageError


def test_render_names_only_the_fields_that_are_there() -> None:
    assert str(TteError("it broke")) == "it broke"
    error = TteError("it broke", where="conv1", why="no reason\nat all", hint="mend it")
    assert error.render().splitlines() == [
        "it broke",
        "  where: conv1",
        "  why:   no reason",
        "         at all",
        "  hint:  mend it",
    ]


@pytest.mark.parametrize(
    ("kind", "status"), [(TteError, 1), (UsageError, 2), (DoesNotFit, 3), (FirmwareFault, 4)]
)
def test_exit_status(kind: type[TteError], status: int) -> None:
    assert kind("x").exit_status == status


def test_an_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DoesNotFit("a", where="b", why="c", hint="d")))
    assert isinstance(error, DoesNotFit)
    assert (error.what, error.where, error.why, error.hint) == ("a", "b", "c", "d")
