"""The ground Forecastle stands on for a run from outside: PostgreSQL, Redis and its own processes.

Everything listens on 127.0.0.1 on a free port. What was started is ended, by process id and in the reverse
order, also after Ctrl-C, SIGTERM or a failure; nothing else is touched.
"""

import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

START_S_MAX = 30
END_S_MAX = 15


class Missing(Exception):
    """Something that cannot be had here, with its fix."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def postgres_bin():
    folders = [os.environ.get("NOGO_POSTGRES_BIN", "")]
    # The newest first; as ci/setup finds them.
    folders += sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]), reverse=True)
    on_path = shutil.which("initdb")
    folders += [os.path.dirname(os.path.realpath(on_path))] if on_path else []
    for folder in folders:
        if folder and all(os.access(os.path.join(folder, name), os.X_OK) for name in ("initdb", "postgres", "createdb")):
            return folder
    raise Missing("PostgreSQL is not here: ci/setup --engine process")


class Ground:
    """Servers and processes; a context manager that ends them."""

    def __init__(self, binary):
        self.binary = binary
        self.folder = tempfile.mkdtemp(prefix="forecastle-outside-")
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name, process in reversed(self.running):
            self._end(name, process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log_of(self, name):
        with open(os.path.join(self.folder, f"{name}.log"), encoding="utf-8", errors="replace") as log:
            return log.read()

    def start(self, name, command, *, announces=False, account=()):
        """Starts a process; where it announces itself, gives back the JSON of its first line."""
        if shutil.which("setpriv"):
            # Where this script is killed outright, nothing stays behind. In one call: a change of account forgets it.
            command = ["setpriv", *account, "--pdeathsig", "QUIT", *command]
        with open(os.path.join(self.folder, f"{name}.log"), "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if announces else log,
                stderr=log,
                # Ctrl-C reaches this script alone, which then ends them in order.
                start_new_session=True,
            )
        self.running.append((name, process))
        if not announces:
            return process
        line = process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            raise RuntimeError(f"{name} did not start: {self.log_of(name)[-2000:]}") from None

    def run(self, name, arguments, *, codes=(0,)):
        """A forecastle command that ends by itself with one of these codes; what it printed."""
        done = subprocess.run([self.binary, *arguments], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode not in codes:
            raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def postgres(self):
        folder, port = postgres_bin(), free_port()
        data = os.path.join(self.folder, "postgres")
        os.mkdir(data, 0o700)
        account = []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root; the account comes with its package.
            os.chmod(self.folder, 0o755)
            shutil.chown(data, "postgres", "postgres")
            account = ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        made = subprocess.run(
            [*(["setpriv", *account] if account else []), f"{folder}/initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D", data],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb: {made.stderr[-2000:]}")
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=120", "shared_buffers=64MB"]
        flags = [word for setting in settings for word in ("-c", setting)]
        process = self.start("postgres", [f"{folder}/postgres", "-D", data, "-p", str(port), "-k", "", *flags], account=account)
        create = [f"{folder}/createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "forecastle"]
        self._until("postgres", process, lambda: subprocess.run(create, capture_output=True, check=False).returncode == 0)
        return port

    def redis(self):
        program, port = shutil.which("redis-server"), free_port()
        if not program:
            raise Missing("Redis is not here: ci/setup --engine process")
        process = self.start(
            "redis", [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.folder]
        )
        self._until("redis", process, lambda: _answers(port))
        return port

    def _until(self, name, process, is_there):
        end = time.monotonic() + START_S_MAX
        while not is_there():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{name} did not start within {START_S_MAX} s: {self.log_of(name)[-2000:]}")
            time.sleep(0.05)

    def _end(self, name, process):
        if process.poll() is not None:
            return
        # PostgreSQL: SIGINT is its fast shutdown. The others drain on SIGTERM.
        process.send_signal(2 if name == "postgres" else 15)
        try:
            process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            print(f"outside: {name} (pid {process.pid}) did not end within {END_S_MAX} s, killed", file=sys.stderr)
            process.kill()
            process.wait()


def _answers(port):
    with socket.socket() as link:
        return link.connect_ex(("127.0.0.1", port)) == 0
