"""Files in `data_dir` belong to the gateway, whoever makes them."""

import os
from concurrent.futures import ThreadPoolExecutor

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


def test_threads_that_write_one_file_at_a_time_take_nothing_from_each_other(tmp_path):
    file = tmp_path / "session.json"

    def write(n):
        files.keep(file, b"%d" % n)
        files.replace(file, b"%d" % n)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(200)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["session.json", "session.json.old"]
