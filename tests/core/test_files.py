"""Files in `data_dir` belong to the gateway, whoever makes them."""

import os
import subprocess
import sys
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


def test_processes_that_write_one_file_at_a_time_both_get_it_written(tmp_path):
    file = tmp_path / "listed.json"
    program = "import pathlib as p, sys; from gateway.core import files as f"
    program += "; [f.keep(p.Path(sys.argv[1]), b'1') for _ in range(200)]"
    both = [subprocess.Popen([sys.executable, "-c", program, str(file)], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [(b"", 0)] * 2
    assert file.read_bytes() == b"1"
