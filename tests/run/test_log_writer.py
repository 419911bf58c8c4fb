"""Whoever does not read the log stops nothing but the log."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest

from gateway.run import log_writer
from tests.kit.ports import free_port
from tests.kit.process import COMMAND, PATIENCE, eventually


@pytest.mark.system
def test_a_gateway_whose_log_nobody_reads_goes_on_and_ends_in_good_order(tmp_path):
    port = free_port()
    config = tmp_path / "config.yaml"
    config.write_text(f"log: {{level: debug}}\nbridges: {{web: {{type: web, port: {port}}}}}")
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"nobody reads this\n" * 100)
    os.set_blocking(writing, True)
    process = subprocess.Popen([*COMMAND, "run", str(config)], stderr=writing, stdin=subprocess.DEVNULL)
    os.close(writing)
    try:

        def answers():
            try:
                return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        eventually(answers)
        process.send_signal(signal.SIGHUP)
        assert answers()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_past_the_bound_lines_are_dropped_counted_and_told(monkeypatch):
    monkeypatch.setattr(log_writer, "MAX_WAITING", 10)
    written, held = [], True

    class Stderr:
        def write(self, text):
            while held:
                time.sleep(0.01)
            written.append(text)

        def flush(self):
            pass

    monkeypatch.setattr(sys, "stderr", Stderr())
    writer = log_writer.LogWriter()
    writer.start()
    for n in range(100):
        writer.write(f"{n}\n")
    writer.flush(0.05)
    assert not written
    held = False
    writer.flush(PATIENCE)
    assert written[:10] == [f"{n}\n" for n in range(10)]
    assert len(written) in {11, 12}  # the first may have been taken out before the others came
    assert written[-1].endswith("lines of the log were lost: nobody read them in time\n")


def test_before_it_is_started_a_line_is_written_where_it_arises(capsys):
    log_writer.LogWriter().write("at once\n")
    assert capsys.readouterr().err == "at once\n"
