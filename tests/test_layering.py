"""Who may import whom: an arrow that the design does not draw fails here.

    schema <- relay        schema <- corolla <- volunteer

A package may import the standard library, itself, and what `ALLOWED` names. Only the relay's and
the schema's third-party imports are listed whole: theirs are few, and torch must not be among them.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = frozenset(
    {"schema", "relay", "corolla", "volunteer", "web", "migrations", "benchmarks", "scripts", "tests"}
)
SERVER_SIDE = frozenset({"starlette", "uvicorn", "sqlalchemy", "alembic", "aiosqlite", "asyncpg"})
TENSOR_SIDE = frozenset(
    {
        "torch",
        "transformers",
        "safetensors",
        "tokenizers",
        "bitsandbytes",
        "accelerate",
        "huggingface_hub",
        "numpy",
    }
)


@dataclass(frozen=True)
class Rule:
    """What one package may import of ours, and what it may not import of others."""

    ours: frozenset[str]
    never: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    """If given: all third-party packages that may be imported."""


RULES = {
    "schema": Rule(frozenset(), only=frozenset({"msgspec"})),
    "relay": Rule(frozenset({"schema"}), never=TENSOR_SIDE),
    "corolla": Rule(frozenset({"schema"}), never=SERVER_SIDE),
    "volunteer": Rule(frozenset({"schema", "corolla"}), never=SERVER_SIDE),
    "migrations": Rule(frozenset({"schema", "relay"}), never=TENSOR_SIDE),
}


def imported_modules(source: str, package: tuple[str, ...]) -> Iterator[str]:
    """Every module that a source file imports, at the top or in a function, by its full name.

    `package`: the package that the file is in, for relative imports.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, level=0) if module:
                yield module
            case ast.ImportFrom(module=module, level=level):
                above = package[: len(package) - level + 1]
                yield ".".join((*above, module) if module else above)
            case ast.Call(func=ast.Name("__import__"), args=[ast.Constant(str(name)), *_]):
                yield name
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(str(name)), *_]):
                yield name
            case _:
                pass


def forbidden_imports(name: str, source: str, package: tuple[str, ...]) -> list[str]:
    """The imports of one file of the package `name` that its rule does not allow."""
    rule = RULES[name]
    bad: list[str] = []
    for module in imported_modules(source, package):
        top = module.partition(".")[0]
        if top in OURS:
            allowed = top == name or top in rule.ours
        else:
            third_party = top not in sys.stdlib_module_names
            allowed = top not in rule.never and (rule.only is None or not third_party or top in rule.only)
        if not allowed:
            bad.append(module)
    return bad


def python_files(name: str) -> list[Path]:
    return sorted((ROOT / name).rglob("*.py"))


@pytest.mark.parametrize("name", RULES)
def test_every_arrow_is_in_the_design(name: str) -> None:
    found: list[str] = []
    for file in python_files(name):
        package = file.relative_to(ROOT).parent.parts
        bad = forbidden_imports(name, file.read_text(encoding="utf-8"), package)
        found += [f"{file.relative_to(ROOT)} imports {module}" for module in bad]
    assert found == []


def test_page_has_no_python() -> None:
    assert python_files("web") == []


@pytest.mark.parametrize("name", [name for name in sorted(OURS - {"tests"}) if (ROOT / name).is_dir()])
def test_nothing_imports_the_tests(name: str) -> None:
    found = [
        str(file.relative_to(ROOT))
        for file in python_files(name)
        for module in imported_modules(file.read_text(encoding="utf-8"), file.relative_to(ROOT).parent.parts)
        if module.partition(".")[0] in {"tests", "pytest", "hypothesis"}
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "source", "bad"),
    [
        ("schema", "import msgspec, struct", []),
        ("schema", "import orjson", ["orjson"]),
        ("schema", "from relay import hub", ["relay"]),
        ("relay", "from starlette.routing import Route\nfrom schema.frames import Frame", []),
        ("relay", "def lazily():\n    import torch.nn", ["torch.nn"]),
        (
            "relay",
            "import corolla.models\nfrom volunteer.node import Node",
            ["corolla.models", "volunteer.node"],
        ),
        ("relay", "from ..volunteer import node", ["volunteer"]),
        ("corolla", "import torch, schema.frames", []),
        ("corolla", "__import__('sqlalchemy.orm')", ["sqlalchemy.orm"]),
        ("corolla", "if TYPE_CHECKING:\n    from relay.hub import Hub", ["relay.hub"]),
        ("volunteer", "from corolla import models\nfrom . import scheduler", []),
        ("volunteer", "importlib.import_module('relay.planner')", ["relay.planner"]),
    ],
)
def test_the_walk_finds_what_is_not_allowed(name: str, source: str, bad: list[str]) -> None:
    assert forbidden_imports(name, source, (name,)) == bad


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return {module.partition(".")[0] for module in done.stdout.split()}


@pytest.mark.skipif(not (ROOT / "relay/app.py").exists(), reason="the relay is not written yet")
def test_relay_does_not_load_torch() -> None:
    loaded = loaded_by("import relay.app")
    assert loaded & {*TENSOR_SIDE, "corolla", "volunteer"} == set()


def test_schema_loads_only_msgspec() -> None:
    files = [file.relative_to(ROOT).with_suffix("") for file in python_files("schema")]
    modules = [".".join(file.parts) for file in files if file.name != "__init__"]
    loaded = loaded_by(f"import {', '.join(modules)}") - loaded_by("import msgspec")
    assert loaded - sys.stdlib_module_names == {"schema"}
