"""Four months of the service, disturbed: the short form of ``make soak``."""

from pathlib import Path

from tests.soak import soak


def test_a_disturbed_service_settles_every_month_once_and_right(tmp_path: Path) -> None:
    done = soak(tmp_path, months=4, seed=6, kills=0.2)
    assert (done["settlements"], done["revisions"]) == (5, 1)
    assert done["late logs"] == done["late files"] == done["broken files"] == 1
    assert done["runs by hand"] == 1
    assert done.get("SIGKILL", 0) >= 1
