"""Files in `data_dir` belong to the gateway, whoever makes them."""

import os

import pytest

from gateway.core import files


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can give files away")
def test_what_root_makes_belongs_to_whom_its_directory_belongs(tmp_path):
    """`sudo sems-gateway halt` on a stopped gateway, and it must still start as its own user."""
    os.chown(tmp_path, 65534, 65534)
    files.replace(tmp_path / "replaced", b"x")
    files.create(tmp_path / "created")
    os.close(files.open_own(tmp_path / "opened", os.O_RDWR))
    with files.locked(tmp_path / "locked"):
        pass
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {65534}
