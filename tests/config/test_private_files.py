"""Files with secrets in them that other users of the machine can read."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from typer.testing import CliRunner

import gateway.config.private_files as module
from gateway.api.registry import installed
from gateway.cli import app
from gateway.run.settings import Config
from tests.kit.certificates import Authority
from tests.kit.ports import free_port
from tests.kit.process import sems_gateway

CONFIG = """\
bridges:
  mqtt: {{type: mqtt, host: 127.0.0.1, port: {port}, username: sems, password: {{file: {secret}}}}}
  web: {{type: web, port: {web}, tls: {{certificate: {certificate}, key: {key}}}, token: {{file: {token}}}}}
"""


class Files:
    def __init__(self, directory):
        self.directory = directory
        (directory / "ca").mkdir()
        self.secret, self.token, self.config = (directory / name for name in ("secret", "token", "config.yaml"))
        self.secret.write_text("hush hush hush hush hush\n")
        self.token.write_text("a long token that nobody guesses\n")
        self.certificate, self.key = Authority(directory / "ca").sign("server", server=True)
        self.write()
        for file in self.private:
            file.chmod(0o600)

    def write(self):
        names = {"secret": self.secret, "token": self.token, "certificate": self.certificate, "key": self.key}
        self.config.write_text(CONFIG.format(port=free_port(), web=free_port(), **names))

    @property
    def private(self):
        return [self.config, self.secret, self.token, Path(self.key)]

    def warnings(self):
        return Config.load(self.config, installed()).warnings()


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A configuration whose files nobody else may read, where everybody could get at them."""
    monkeypatch.setattr(module, "_passable", lambda path: "closed" not in path.parts)
    return Files(tmp_path)


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(
    ("mode", "may", "remedy"),
    [(0o640, "read", "g-r"), (0o644, "read", "g-r,o-rwx"), (0o604, "read", "o-rwx"), (0o664, "change", "g-rw,o-rwx")],
)
def test_what_others_can_read_is_told_with_what_to_paste(files, which, mode, may, remedy):
    assert files.warnings() == []
    file = files.private[which]
    file.chmod(mode)
    (warning,) = files.warnings()
    assert warning.startswith(f"other users of this machine can {may} ")
    command = f"chmod {remedy} {file}"
    assert warning.endswith(command)
    subprocess.run(command.split(), check=True)
    assert files.warnings() == []


def test_a_certificate_is_no_secret(files):
    Path(files.certificate).chmod(0o644)
    assert files.warnings() == []


def test_a_directory_that_others_can_not_pass_is_enough(files):
    closed = files.directory / "closed"
    closed.mkdir()
    files.secret = files.secret.rename(closed / "secret")
    files.secret.chmod(0o644)
    files.write()
    assert files.warnings() == []


def test_a_link_counts_as_what_it_leads_to(files):
    real = files.secret.rename(files.directory / "real")
    files.secret.symlink_to(real)
    assert files.warnings() == []
    real.chmod(0o644)
    assert len(files.warnings()) == 1


def test_secrets_of_a_container_are_as_docker_makes_them(files, monkeypatch):
    monkeypatch.setattr(module, "CONTAINER_SECRETS", files.directory)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", list)
    if files.secret.stat().st_uid != 0:
        pytest.skip("only root's are")
    files.secret.chmod(0o444)
    assert files.warnings() == []
    files.secret.chmod(0o446)
    assert len(files.warnings()) == 1


def test_a_group_may_read_what_the_gateway_reads_by_it(files, monkeypatch):
    files.secret.chmod(0o640)
    assert len(files.warnings()) == 1
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert not [w for w in files.warnings() if str(files.secret) in w]
    files.secret.chmod(0o660)
    assert [w for w in files.warnings() if w.endswith(f"chmod g-w {files.secret}")]


def test_who_passes_the_directories(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    for mode, passable in ((0o755, True), (0o711, True), (0o710, True), (0o700, False), (0o744, False)):
        here.chmod(mode)
        assert module._passable(here) is passable


def test_check_and_run_say_so():
    with TemporaryDirectory() as directory:
        files = Files(Path(directory))
        files.secret.chmod(0o644)

        def check():
            done = CliRunner().invoke(app, ["check", str(files.config)])
            assert done.exit_code == 0, done.output
            return done.stderr.replace("\n", "")

        assert "other users" not in check(), "its directory lets nobody else pass"
        files.directory.chmod(0o711)
        assert f"chmod g-r,o-rwx {files.secret}" in check()
        with sems_gateway("run", files.config) as process:
            process.line("other users of this machine can read")
