"""The program of an application: what `bin/<name>` does. Pure.

It does what the PEX would do that Pants makes of the same `pex_binary`, without unpacking anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Tuple, Union


@dataclass(frozen=True)
class EntryPoint:
    """A module, to be run as `python -m` does, or a function in it, to be called."""

    module: str
    function: Optional[str] = None


@dataclass(frozen=True)
class EnvironmentScript:
    """A file in the `bin` directory of the environment, to be run as what it is.

    :param is_python: whether it is a script of Python, rather than a program of its own.
    """

    path: str
    is_python: bool


@dataclass(frozen=True)
class Launcher:
    """What a program starts, and with what.

    :param python: the interpreter, that of the environment.
    :param sources: the directory of first-party sources, if any.
    :param main: what to run; None for an interpreter.
    :param args: arguments before those of the command line.
    :param env: environment variables, for those that are not set.
    :param isolated: whether `PYTHONPATH` counts for nothing.
    :param for_children: whether a Python that it starts finds the sources, too.
    :param strip_pex_env: whether `PEX_*` variables are removed.
    """

    python: str
    sources: Optional[str]
    main: Union[EntryPoint, EnvironmentScript, None]
    args: Tuple[str, ...] = ()
    env: Tuple[Tuple[str, str], ...] = ()
    isolated: bool = True
    for_children: bool = False
    strip_pex_env: bool = True

    def text(self) -> str:
        """The program. Processes that `multiprocessing` starts import it, and run nothing then."""
        lines = [*self._path_lines(), *self._environment_lines(), *self._main_lines()]
        body = "".join(f"    {line}\n" for line in lines)
        return f'#!{self.python}\nimport os, sys\n\nif __name__ == "__main__":\n{body}'

    def _path_lines(self) -> Iterator[str]:
        if self.isolated:
            yield 'for path in os.environ.get("PYTHONPATH", "").split(os.pathsep):'
            yield "    if path and os.path.abspath(path) in sys.path:"
            yield "        sys.path.remove(os.path.abspath(path))"
        # Python puts the directory of the program first, where there is nothing to import.
        yield 'if not getattr(sys.flags, "safe_path", False):'
        yield "    del sys.path[0]"
        if self.sources:
            yield f"sys.path.insert(0, {self.sources!r})"

    def _environment_lines(self) -> Iterator[str]:
        if self.strip_pex_env:
            yield 'for name in [name for name in os.environ if name.startswith("PEX_")]:'
            yield "    del os.environ[name]"
        for name, value in self.env:
            yield f"os.environ.setdefault({name!r}, {value!r})"
        if self.args:
            yield f"sys.argv[1:1] = {list(self.args)!r}"
        if self.sources and (self.for_children or self.main is None):
            yield f"paths = [{self.sources!r}]"
            if not self.isolated:
                yield 'paths += filter(None, [os.environ.get("PYTHONPATH")])'
            yield 'os.environ["PYTHONPATH"] = os.pathsep.join(paths)'

    def _main_lines(self) -> Iterator[str]:
        main = self.main
        if main is None:
            yield "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        elif isinstance(main, EnvironmentScript) and not main.is_python:
            yield f"os.execv({main.path!r}, [{main.path!r}, *sys.argv[1:]])"
        elif isinstance(main, EnvironmentScript):
            yield "import runpy"
            yield f"sys.argv[0] = {main.path!r}"
            yield f'runpy.run_path({main.path!r}, run_name="__main__")'
        elif main.function is None:
            yield "import runpy"
            yield f'runpy.run_module({main.module!r}, run_name="__main__", alter_sys=True)'
        else:
            yield "from importlib import import_module"
            yield f"main = import_module({main.module!r})"
            for attribute in main.function.split("."):
                yield f"main = main.{attribute}"
            yield "sys.exit(main())"
