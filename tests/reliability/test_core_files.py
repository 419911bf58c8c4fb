"""Whatever ends the gateway, there is no core file for its secrets to be in."""

import ctypes
import resource
import signal
import subprocess
import sys

import pytest

from tests.kit.process import ROOT

ABORT = "import os; os.abort()"
HARDENED = "from gateway.run.hardening import no_core_files; no_core_files(); "
SHOW = "import ctypes, resource as r; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *r.getrlimit(r.RLIMIT_CORE))"


def allow_core_files():
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)


def python(code, directory):
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    return subprocess.run(
        command, cwd=directory, preexec_fn=allow_core_files, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_process_says_of_itself_that_it_is_not_dumped(tmp_path):
    assert python(HARDENED + SHOW, tmp_path).stdout.split() == ["0", "0", "0"]


def test_an_abort_leaves_no_core_file(tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    assert python(ABORT, plain).returncode == -signal.SIGABRT
    if not list(plain.iterdir()):
        pytest.skip("no program leaves a core file on this machine (kernel.core_pattern, ulimit -c)")
    ours = tmp_path / "ours"
    ours.mkdir()
    assert python(HARDENED + ABORT, ours).returncode == -signal.SIGABRT
    assert not list(ours.iterdir())


def test_the_command_line_sees_to_it_before_it_does_anything(monkeypatch):
    done = []
    monkeypatch.setattr("gateway.cli.root.no_core_files", lambda: done.append("hardened"))
    monkeypatch.setattr("gateway.cli.root.app", lambda: done.append("run"))
    from gateway.cli import main

    main()
    assert done == ["hardened", "run"]
