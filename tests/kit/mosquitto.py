"""A real mosquitto on a free port of 127.0.0.1, that can be stopped and started again on the same port."""

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.kit import acl
from tests.kit.bench import until
from tests.kit.ports import free_port


def find(program):
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def need(program):
    """Return the program's path; skip the test where it is missing, or fail where nothing may be skipped."""
    path = find(program)
    if path is None:
        text = f"{program} is not installed (Debian: apt-get install mosquitto mosquitto-clients mbpoll)"
        pytest.fail(text) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(text)
    return path


HEEDS_WITHIN = 20.0
"""Seconds."""


class Mosquitto:
    """`users` (name → password) closes it to others; `tls` is a `Certificates`; `extra` are lines of its config;
    `acl_of` are users whom it holds to the very rules of docs/mqtt.md.

    With SEMS_GATEWAY_ACL=1 (`make acl`) one that is open to everybody holds the gateway to the rules of docs/mqtt.md,
    and to stop it fails where the gateway tried what these don't permit.
    """

    host = "127.0.0.1"

    def __init__(self, directory, users=None, tls=None, extra=(), acl_of=()):
        self.program = need("mosquitto")
        self.port = free_port()
        self.directory = Path(directory)
        self.process = None
        # A test that floods wants to see every message, so nothing is dropped for a slow subscriber.
        lines = [f"listener {self.port} {self.host}", "user root", "log_dest stderr", "max_queued_messages 0", *extra]
        # With rules, mosquitto 2.0.11 keeps nothing for sessions that it has restored until their clients are back.
        apart = any(line.startswith(("acl_file", "persistence")) for line in extra)
        self.bound = acl.BOUND and users is None and tls is None and not apart
        if acl_of:
            self.bound = False
            lines += acl.binding(self.directory, acl_of, need("mosquitto_passwd"), as_documented=True)
        elif self.bound:
            lines += acl.binding(self.directory, acl.GATEWAYS, need("mosquitto_passwd"))
        elif users is None:
            lines.append("allow_anonymous true")
        else:
            passwords = self.directory / "passwords"
            passwords.touch(mode=0o600)
            for name, password in users.items():
                command = [need("mosquitto_passwd"), "-b", str(passwords), name, password]
                subprocess.run(command, check=True, capture_output=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        if tls is not None:
            lines += [f"cafile {tls.ca}", f"certfile {tls.cert}", f"keyfile {tls.key}", "require_certificate true"]
        self.config = self.directory / "mosquitto.conf"
        self.config.write_text("\n".join(lines) + "\n")

    async def start(self):
        with (self.directory / "mosquitto.log").open("ab") as log:
            command = [self.program, "-c", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220 - it is quick
        await until(self._answers, "mosquitto listens")

    def _answers(self):
        assert self.process.poll() is None, self.log
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    async def stop(self):
        """End it as a service manager would: now and then it does not heed SIGTERM."""
        if self.process is not None:
            self.process.terminate()
            try:
                await asyncio.to_thread(self.process.wait, HEEDS_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                await asyncio.to_thread(self.process.wait)
            self.process = None
            if self.bound:
                assert not acl.refused(self.log), "the rules of docs/mqtt.md are too narrow"

    @property
    def log(self):
        """All that it has said so far."""
        return (self.directory / "mosquitto.log").read_text(errors="replace")


@asynccontextmanager
async def mosquitto(directory, **options):
    broker = Mosquitto(directory, **options)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


class Certificates:
    """A CA, and one certificate from it for 127.0.0.1 that serves server and client."""

    def __init__(self, directory):
        openssl = need("openssl")
        self.ca, self.cert, self.key = (Path(directory) / name for name in ("ca.pem", "cert.pem", "key.pem"))
        ca_key = Path(directory) / "ca.key"

        def run(*args):
            subprocess.run([openssl, *map(str, args)], check=True, capture_output=True)

        def request(subject):
            return ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2,
                    "-subj", subject)  # fmt: skip

        run(*request("/CN=test CA"), "-keyout", ca_key, "-out", self.ca)
        run(
            *request("/CN=127.0.0.1"), "-keyout", self.key, "-out", self.cert, "-CA", self.ca, "-CAkey", ca_key,
            "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip

    def client_context(self):
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.cert, self.key)
        return context
