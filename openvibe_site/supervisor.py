"""`make run` and `serve()`: starts everything that OpenVibe consists of, and takes all of it along at the end.

It imports no Django, so that it speaks at once and needs little memory beside its children.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from openvibe.bus.address import without_password
from openvibe.errors import SetupError
from openvibe_site import commands, crew, env, nats_server, ports, preparation, readiness
from openvibe_site.children import Child
from openvibe_site.console import Console
from openvibe_site.crew import Crew
from openvibe_site.env import CODE_ROOT, INSTALLED, PROJECT_ROOT, Environment
from openvibe_site.errors import CannotStart
from openvibe_site.home import Home, write_private
from openvibe_site.stop import Stop, Stopped
from openvibe_site.watch import Watch

NATS_PATIENCE = 20.0
READY_PATIENCE = 60.0
REMINDER_EVERY = 10.0
# Workers hand their runs back at the next boundary; a run that takes longer is taken over by its lease.
GRACE = 20.0
GLANCE = 0.1
LOOK_EVERY = 0.5


def main(environ: Mapping[str, str] = os.environ, *, folder: Path = PROJECT_ROOT) -> int:
    """Serves until somebody ends it; returns the exit status. `folder` is where the children run."""
    console = Console()
    try:
        environment = env.read(environ)
        require_key(environment)
        require_shared_bus(environment)
        home = Home(environment.home)
        home.make()
        with home.claimed():
            stop = Stop()
            with stop.listening():
                crew.end_leftovers(home, say=console.say)
                ports.require_free(environment.port)
                place = Place(home, folder, environ)
                Supervisor(environment, place=place, console=console, stop=stop).run()
    except (SetupError, CannotStart) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, SetupError) else 1
    return 0


def require_key(environment: Environment) -> None:
    keys = {
        "anthropic": ("ANTHROPIC_API_KEY", environment.anthropic_api_key, "Anthropic"),
        "openai": ("OPENAI_API_KEY", environment.openai_api_key, "OpenAI"),
    }
    name, key, vendor = keys.get(environment.llm, ("", "none needed", ""))
    if not key:
        raise SetupError(
            f"OPENVIBE_LLM is {environment.llm!r} but {name} is not set: "
            f"set it to a key of your {vendor} account, or leave OPENVIBE_LLM out to use the simulated model."
        )


def require_shared_bus(environment: Environment) -> None:
    if environment.bus == "memory":
        raise SetupError(
            "OPENVIBE_BUS is 'memory', which reaches one process, and a site is several: leave it out for the NATS "
            "server that OpenVibe brings along, or set it to 'redis'. Scripts use OperatorRuntime(bus=\"memory\")."
        )


@dataclass(frozen=True)
class Place:
    """Where the children run: what they keep, the folder they are in, and the environment that they get."""

    home: Home
    folder: Path
    environ: Mapping[str, str]


class Supervisor:
    """One run from the first child to the last."""

    def __init__(self, environment: Environment, *, place: Place, console: Console, stop: Stop) -> None:
        self.environment = environment
        self.place = place
        self.home = place.home
        self.console = console
        self.stop = stop
        self.crew = Crew(self.home.children)
        self.nats_url = environment.nats_url

    def run(self) -> None:
        """Returns when somebody asked it to end; raises `CannotStart` when it does not come to life."""
        try:
            nats_port = self.start_nats()
            self.prepare()
            self.await_nats(nats_port)
            self.start_children()
            self.await_ready()
            self.welcome()
            self.keep_running()
        except Stopped:
            pass
        finally:
            self.end()

    def keep_running(self) -> None:
        watch = Watch(self.environment.operator_modules, home=self.home.root) if self.environment.reload else None
        looked = time.monotonic()
        while True:
            self.stop.pause(GLANCE)
            self.crew.tend()
            if watch and time.monotonic() - looked > LOOK_EVERY:
                looked = time.monotonic()
                if changed := watch.changed():
                    self.renew(changed)

    def renew(self, changed: list[Path]) -> None:
        """Registers the operators again and starts afresh whoever plays them; a mistake leaves all as it is."""
        names = ", ".join(path.name for path in changed[:3]) + (" and others" if changed[3:] else "")
        self.console.say(f"changed: {names}")
        try:
            self.prepare()
            self.crew.renew(kept=["nats"], grace=GRACE, hurried=lambda: self.stop.asked)
            self.await_ready()
        except CannotStart as error:
            self.console.write(str(error))
            self.console.say("what ran before goes on; save the file again when it is mended")
        else:
            self.console.say("ready again")

    def start_nats(self) -> int | None:
        """The embedded server starts while the database is prepared; None when somebody else's is used, or no NATS."""
        if self.environment.bus != "nats":
            # An agent that found the address of an earlier start would talk to nobody.
            self.home.nats_url.unlink(missing_ok=True)
            return None
        if self.nats_url:
            write_private(self.home.nats_url, self.nats_url)
            return None
        server = nats_server.configure(self.home, server=self.environment.server)
        self.console.say("starting nats-server …")
        self.nats_url = server.private_url
        self.start("nats", server.command)
        write_private(self.home.nats_url, server.public_url)
        return server.port

    def prepare(self) -> None:
        self.console.say("preparing the database …")
        preparation.perform(
            commands.PREPARE,
            environ=self.environ("prepare"),
            folder=self.place.folder,
            log=self.home.logs / "setup.log",
            say=self.console.say,
            stop=self.stop,
        )

    def await_nats(self, port: int | None) -> None:
        deadline = time.monotonic() + NATS_PATIENCE
        while port is not None and not ports.answers(port):
            if time.monotonic() > deadline:
                raise CannotStart(f"nats-server does not answer on port {port}; see {self.home.logs / 'nats.log'}.")
            self.crew.tend()
            self.stop.pause(GLANCE)

    def start_children(self) -> None:
        self.console.say("starting workers, the bridge and the web …")
        for number in range(1, self.environment.worker_processes + 1):
            self.start(f"worker-{number}", commands.worker(number, self.environment))
        self.start("bridge", commands.BRIDGE)
        self.start("web", commands.web(self.environment))

    def await_ready(self) -> None:
        began = reminded = time.monotonic()
        while complaint := readiness.complaint(self.environment.port, allowed_hosts=self.environment.allowed_hosts):
            now = time.monotonic()
            if now - began > READY_PATIENCE:
                raise CannotStart(
                    f"OpenVibe is not ready after {READY_PATIENCE:.0f} s: {complaint}. Logs lie in {self.home.logs}."
                )
            if now - reminded > REMINDER_EVERY:
                reminded = now
                self.console.say(f"still waiting: {complaint}")
            self.crew.tend()
            self.stop.pause(GLANCE)

    def welcome(self) -> None:
        self.console.say("ready")
        self.console.write()
        self.console.tell("page", f"http://{ports.LOOPBACK}:{self.environment.port}/agents/", strong=True)
        link = self.home.signin.read_text("utf-8").strip() if self.home.signin.exists() else "make signin"
        self.console.tell("sign in", link, strong=True)
        self.console.tell("API token", f"in {self.home.token}")
        if self.environment.bus == "nats":
            self.console.tell("NATS", f"address in {self.home.nats_url}")
        else:
            self.console.tell("bus", f"Redis at {without_password(self.environment.redis_url)}; agents cannot use it")
        self.console.tell("logs", f"in {self.home.logs}")
        self.console.tell("stop", "Ctrl-C")
        self.console.write()

    def end(self) -> None:
        if not self.crew.children:
            return
        self.console.say("ending; workers hand their runs back first (Ctrl-C again ends at once) …")
        self.crew.end(last=["nats"], grace=GRACE, hurried=lambda: self.stop.hurried)
        self.console.say("ended")

    def start(self, name: str, command: tuple[str, ...]) -> None:
        self.crew.start(
            Child(
                name,
                command,
                environ=self.environ(name),
                folder=self.place.folder,
                log=self.home.logs / f"{name}.log",
                say=self.console.say,
            )
        )

    def environ(self, name: str) -> dict[str, str]:
        given = self.place.environ
        # A checkout is on nobody's path; what is installed needs no help.
        path = [] if INSTALLED else [str(CODE_ROOT), *filter(None, [given.get("PYTHONPATH")])]
        return {
            **given,
            **({"PYTHONPATH": os.pathsep.join(path)} if path else {}),
            "OPENVIBE_HOME": str(self.home.root),
            "NATS_URL": self.nats_url,
            "DJANGO_SETTINGS_MODULE": "openvibe_site.settings",
            "PYTHONUNBUFFERED": "1",
            crew.MARK: name,
        }


if __name__ == "__main__":
    sys.exit(main())
