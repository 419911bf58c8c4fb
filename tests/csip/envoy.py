"""bsgip's envoy, a CSIP-AUS utility server that we did not write, as it is run in earnest: PostgreSQL behind it, nginx
before it that ends TLS and asks for a client certificate. All of it on loopback, in a directory of its own.

`SEMS_GATEWAY_ENVOY` names a Python that has envoy installed (its README says how); PostgreSQL and nginx are Debian's.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from tests.kit.certificates import Authority
from tests.kit.ports import free_port
from tests.kit.process import Process, eventually

ENVOY = os.environ.get("SEMS_GATEWAY_ENVOY", "")
ADMIN = ("kit", "kit-password")
NGINX = """
daemon off; worker_processes 1; pid {at}/nginx.pid; error_log {at}/nginx.log;
events {{ worker_connections 64; }}
http {{
  access_log {at}/access.log;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    ssl_client_certificate {ca}; ssl_verify_client on;
    location / {{
      if (-f {at}/404) {{ return 404; }}
      if (-f {at}/500) {{ return 500; }}
      proxy_pass http://127.0.0.1:{behind};
      proxy_set_header X-Forwarded-Client-Cert $ssl_client_escaped_cert;
    }}
  }}
}}
"""


class Envoy:
    """One that runs."""

    def __init__(self, port, admin, authority, database, program):
        self.url = f"https://127.0.0.1:{port}/dcap"
        self.authority = authority
        self._at = authority.directory
        self._program = program
        self._database = database
        self._admin = httpx.Client(base_url=admin, auth=ADMIN, trust_env=False, timeout=60)

    def ask(self, method, path, **options):
        """What the utility's own people do, by envoy's other API."""
        response = self._admin.request(method, path, **options)
        response.raise_for_status()
        return response.json() if response.content else None

    def site(self, lfdi):
        """The site that a device has registered; None while there is none."""
        found = self.ask("GET", "/site?limit=100")["sites"]
        return next((each for each in found if each["lfdi"].upper() == lfdi), None)

    def group(self, primacy):
        """Make a program; returns its id."""
        body = {"description": f"program {primacy}", "primacy": primacy, "fsa_id": 1}
        response = self._admin.post("/site_control_group", json=body)
        response.raise_for_status()
        return int(response.headers["location"].rpartition("/")[2])

    def default(self, group, **watts):
        names = ("import", "export", "generation", "load")
        body = {f"{name}_limit_watts": {"value": watts[name]} if name in watts else None for name in names}
        self.ask(
            "POST",
            f"/site_control_group/{group}/default",
            json=body | {"ramp_rate_percent_per_second": None, "storage_target_watts": None},
        )

    def control(self, group, site, start, seconds, **what):
        """Make an event that begins `start` seconds from now."""
        self.controls(group, site, start, [what | {"duration_seconds": seconds}])

    def controls(self, group, site, start, rows):
        """Make events at once, one behind the other; the first begins `start` seconds from now."""
        at, made = datetime.now(UTC) + timedelta(seconds=start), []
        for row in rows:
            made.append({"calculation_log_id": None, "site_id": site, "start_time": at.isoformat()} | row)
            at += timedelta(seconds=row["duration_seconds"])
        self.ask("POST", f"/site_control_group/{group}/controls", json=made)

    def aggregator(self, lfdi):
        """Have a certificate be an aggregator's."""
        response = self._admin.post("/aggregator", json={"name": lfdi[:8]})
        response.raise_for_status()
        until = (datetime.now(UTC) + timedelta(days=365)).isoformat()
        where = f"{response.headers['location']}/certificate"
        self.ask("POST", where, json=[{"lfdi": lfdi.lower(), "expiry": until}])

    @contextmanager
    def answering(self, status):
        """Have it answer each request with a status of HTTP."""
        file = self._at / str(status)
        file.touch()
        try:
            yield
        finally:
            file.unlink()

    @contextmanager
    def hanging(self):
        """Have it answer nothing."""
        self._program.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._program.send_signal(signal.SIGCONT)

    def asked(self, path):
        """How often something was asked for."""
        return (self._at / "access.log").read_text().count(f'"GET {path}')

    def rows(self, query):
        """Rows of its database, each a list of texts: what it has taken in."""
        return [line.split("|") for line in _psql(self._database, query, "-At").splitlines()]

    def responses(self, site):
        """Status of each response of a site, oldest first, by event."""
        found = {}
        for event, status in self.rows(
            "SELECT dynamic_operating_envelope_id_snapshot, response_type FROM dynamic_operating_envelope_response "
            f"WHERE site_id = {site} ORDER BY dynamic_operating_envelope_response_id"
        ):
            found.setdefault(int(event), []).append(int(status))
        return list(found.values())

    def cancel_all(self, group):
        """Cancel the events of a program."""
        begin, end = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
        self.ask("DELETE", f"/site_control_group/{group}/controls/{begin.isoformat()}/{end.isoformat()}")


@contextmanager
def envoy():
    """Have one running, empty."""
    with ExitStack() as stack:
        at = Path(tempfile.mkdtemp(prefix="csip-", dir="/tmp"))
        stack.callback(shutil.rmtree, at, ignore_errors=True)
        authority = Authority(at, "utility")
        database = stack.enter_context(_postgres(at))
        environment = os.environ | {
            "DATABASE_URL": f"postgresql+asyncpg://kit@127.0.0.1:{database}/envoy",
            "ADMIN_USERNAME": ADMIN[0],
            "ADMIN_PASSWORD": ADMIN[1],
            "ALLOW_DEVICE_REGISTRATION": "true",
            "STATIC_REGISTRATION_PIN": "11111",
            "TZ": "UTC",  # in any other zone its Time is an error 500 with a dateutil of today
        }
        package = _run([ENVOY, "-c", "import envoy.server as s; print(s.__path__[0])"]).strip()
        _run([ENVOY, "-P", "-m", "alembic", "upgrade", "head"], cwd=package, env=environment)
        _psql(
            database,
            "INSERT INTO aggregator (aggregator_id, name, changed_time) VALUES (0, 'NULL', now()) "
            "ON CONFLICT DO NOTHING",
        )
        ports = [free_port() for _ in range(3)]
        programs = []
        for app, port in (("envoy.server.main:app", ports[0]), ("envoy.admin.main:app", ports[1])):
            command = [ENVOY, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
            process = Process(command, env=environment)
            stack.callback(process.end)
            process.line("startup complete")
            programs.append(process)
        certificate, key = authority.sign("server", server=True)
        conf = at / "nginx.conf"
        conf.write_text(
            NGINX.format(at=at, port=ports[2], behind=ports[0], ca=authority.pem, certificate=certificate, key=key)
        )
        nginx = Process(["nginx", "-c", str(conf), "-p", str(at)])
        stack.callback(nginx.end)
        eventually(lambda: _listens(ports[2]), otherwise=lambda: f"nginx does not listen: {nginx.text}")
        yield Envoy(ports[2], f"http://127.0.0.1:{ports[1]}", authority, database, programs[0])


def _listens(port):
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def _run(command, **options):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def _postgres(at):
    """Have a server of our own; gives its port. PostgreSQL refuses to be root's."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parent.name))
    data, port = at / "data", free_port()
    data.mkdir()
    options = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(data, user.pw_uid, user.pw_gid)
        at.chmod(0o711)
        options = {"user": user.pw_uid, "group": user.pw_gid}
    _run([programs / "initdb", "-D", data, "-U", "kit", "-A", "trust", "-E", "UTF8", "--no-sync"], **options)
    command = [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
    server = Process([str(each) for each in command], **options)
    try:
        server.line("ready to accept connections")
        _run([programs / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "kit", "envoy"])
        yield port
    finally:
        server.end(2)  # SIGINT: at once, in order


def _psql(port, statement, *options):
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", "kit", "-d", "envoy"]
    return _run(["psql", *where, *options, "-c", statement])
