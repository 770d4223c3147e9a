#!/usr/bin/env python3
"""Set up a checkout of jdd and use it; needs Python 3.11 or newer and a package index.

    python3 dev.py quickstart                  distil the 8x8 digits; other words go to jdd
    python3 dev.py test                        lint, types and the tests that are not slow
    python3 dev.py test --slow                 lint, types and every test
    python3 dev.py test -- -k resume -x        only pytest, with these arguments
    python3 dev.py docs                        build the documentation into site/

The first call makes .venv beside this file; later ones reuse it until pyproject.toml, the Python
or the place of the checkout changes. The exit code is that of the first step that fails.
"""

# Written so that an old Python still gets as far as saying that it is too old.

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "jdd-dev.txt"  # in a .venv that this file has made: what is installed in it
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
NEWER = ("python3.13", "python3.12", "python3.11", "python3.14")  # tried in this order
USAGE = __doc__.split("\n\n")[1]


class Stop(Exception):
    """Ends the program with one line and an exit code."""

    def __init__(self, message, code=2):
        super().__init__(message)
        self.code = code


def say(text):
    """Print one line at once, also into a pipe."""
    print("dev.py: " + text, flush=True)


def main(argv):
    """Run one command and return its exit code."""
    if os.name != "posix":
        raise Stop("jdd runs on Linux and macOS; on Windows, inside WSL")
    commands = {"quickstart": quickstart, "test": test, "docs": docs}
    if argv[:1] in ([], ["-h"], ["--help"]):
        print(USAGE)
        return 0 if argv else 2
    if argv[0] not in commands:
        raise Stop("{!r} is no command; there are: {}".format(argv[0], ", ".join(commands)))
    if sys.version_info < OLDEST:
        return with_newer_python(argv)
    return commands[argv[0]](argv[1:])


def with_newer_python(argv):
    """Run again under a Python that is new enough, if there is one."""
    for name in NEWER:
        path = shutil.which(name)
        if path and works(Path(path)):
            say("this Python is {}.{}; using {}".format(*sys.version_info[:2], path))
            os.execv(path, [path, str(ROOT / "dev.py"), *argv])
    have = "{}.{}".format(*sys.version_info[:2])
    raise Stop(
        "jdd needs Python 3.11 or newer and this is {}: install one (python.org, "
        "apt install python3.12 python3.12-venv, brew install python@3.12) "
        "and run python3.12 dev.py {}".format(have, " ".join(argv))
    )


def quickstart(argv):
    """Run jdd in the caller's folder: its default config is the quick start."""
    set_up()
    say(" ".join(["python -m jdd.main", *argv]))
    # In place of this process, so that Ctrl-C and SIGTERM reach the run, which saves first.
    os.execve(str(PYTHON), [str(PYTHON), "-m", "jdd.main", *argv], environment())


def test(argv):
    """Run lint, types and tests; with arguments for pytest, only pytest."""
    ours, _, theirs = split(argv, "--")
    unknown = [word for word in ours if word != "--slow"]
    if unknown:
        raise Stop(f"test takes --slow, and pytest's arguments after --; not {unknown[0]}")
    set_up()
    lint = [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],  # the folders are named in pyproject.toml
    ]
    which = [] if "--slow" in ours else ["-m", "not slow"]
    # Two processes: compiling, which is most of the time, uses one core. A file stays together.
    # A process that dies or hangs ends the run with its traceback, not with nothing.
    limits = ["-o", "faulthandler_timeout=900", "-o", "faulthandler_exit_on_timeout=true"]
    spread = ["-n", "2", "--dist", "loadfile", "--max-worker-restart=0", *limits]
    spread = [] if theirs else spread
    steps = ([] if theirs else lint) + [["pytest", *spread, *which, *theirs]]
    env = dict(environment(), JAX_PLATFORMS=os.environ.get("JAX_PLATFORMS") or "cpu")
    if "--slow" not in ours:
        env["XLA_FLAGS"] = " ".join([env.get("XLA_FLAGS", ""), *quick_flags()]).strip()
    begun = time.time()
    for step in steps:
        say(" ".join(step))
        code = exit_code(
            subprocess.call(
                [str(PYTHON), "-m", *step], cwd=str(ROOT), env=env, stdin=subprocess.DEVNULL
            )
        )
        if code:
            say(f"{step[0]} failed (exit code {code})")
            return code
    say(f"all passed in {time.time() - begun:.0f} s")
    return 0


def quick_flags():
    """Return the flags of an XLA that compiles quickly; with --slow the tests run without them.

    Most of the time of the tests is compiling. Without XLA's optimiser it is a quarter less; the
    older of the two CPU code generators, which compiles jdd's steps anyway, takes half of the rest.
    An XLA with one code generator does not know the option, and would abort on its flag.
    """
    option = "xla_cpu_use_fusion_emitters"
    program = f"import jax; jax.jit(abs).lower(1.0).compile({{{option!r}: False}})"
    env = dict(environment(), JAX_PLATFORMS="cpu")
    known = subprocess.call(
        [str(PYTHON), "-c", program], cwd=str(ROOT), env=env, stderr=subprocess.DEVNULL
    )
    flags = ["--xla_backend_optimization_level=0"]
    return flags if known else [*flags, f"--{option}=false"]


def docs(argv):
    """Build the documentation site; a warning is an error, and so its exit code."""
    if argv:
        raise Stop(f"docs takes no arguments; not {argv[0]}")
    set_up("docs")
    command = ["mkdocs", "build", "--strict", "--quiet"]
    say(" ".join(command))
    env = dict(environment(), NO_MKDOCS_2_WARNING="1")  # no advertisement in the log
    code = exit_code(subprocess.call([str(PYTHON), "-m", *command], cwd=str(ROOT), env=env))
    say(f"mkdocs failed (exit code {code})" if code else "built site/index.html")
    return code


def split(words, word):
    """Return what is before and after the first ``word``, as str.partition does."""
    at = words.index(word) if word in words else len(words)
    return words[:at], word in words, words[at + 1 :]


def set_up(extra="test"):
    """Make .venv, or find that it is ready; any ``extra`` but the test tools is added to it."""
    wanted = stamp()
    if not (works(PYTHON) and STAMP.exists() and STAMP.read_text() == wanted):
        if VENV.exists() and not STAMP.exists():
            raise Stop(f"{VENV} was not made by dev.py: move it away, or use its own tools")
        make_venv()
        install("test", "jdd and its test tools")
        STAMP.write_text(wanted)
    added = VENV / f"jdd-dev-{extra}.txt"
    if extra != "test" and not (added.exists() and added.read_text() == wanted):
        install(extra, f"the extra {extra}")
        added.write_text(wanted)


def install(extra, what):
    """Install jdd with an extra into .venv."""
    begun = time.time()
    say(f"installing {what} into .venv (some minutes, once) ...")
    pip = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar=off"]
    code, output = quietly([*pip, "--editable", f".[{extra}]"])
    if code:
        print(output, flush=True)
        raise Stop(f"pip could not install {what}; its words are above", code)
    say(f"installed in {time.time() - begun:.0f} s")


def make_venv():
    """Make an empty .venv in place of an older one of ours."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise Stop(
            "this Python comes without {}: on Debian or Ubuntu, apt install "
            "python{}.{}-venv".format(" and ".join(missing), *sys.version_info[:2])
        )
    say("making .venv with Python {}.{}.{} ...".format(*sys.version_info[:3]))
    code, output = quietly([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if code:
        shutil.rmtree(str(VENV), ignore_errors=True)
        raise Stop("python -m venv failed: " + " ".join(output.split()), code)
    STAMP.write_text("not yet installed\n")


def quietly(command):
    """Run a command in the checkout; return its exit code and all that it printed."""
    done = subprocess.run(
        command,
        cwd=str(ROOT),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return exit_code(done.returncode), done.stdout.decode(errors="replace")


def exit_code(returned):
    """Return a process's exit code as a shell tells it; ended by signal n is 128 + n."""
    return returned if returned >= 0 else 128 - returned


def stamp():
    """Return what the installed packages depend on, in one line."""
    digest = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()[:16]
    return "{} python{}.{} {}\n".format(digest, *sys.version_info[:2], ROOT)


def works(python):
    """Tell whether an interpreter is there and runs."""
    if not python.exists():
        return False
    return subprocess.call([str(python), "-c", ""], stderr=subprocess.DEVNULL) == 0


def environment():
    """Return the caller's environment without what would lead Python or pip out of .venv."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    env.pop("__PYVENV_LAUNCHER__", None)  # of macOS
    return dict(env, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONUNBUFFERED="1")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as stop:
        print(f"dev.py: error: {stop}", file=sys.stderr)
        sys.exit(stop.code)
    except KeyboardInterrupt:
        sys.exit(130)
