"""`python -m relay model add|list|remove|forget`: what the swarm serves."""

import argparse

from relay.commands.base import columns, explain, run_with_store, when
from relay.records import ModelRecord
from relay.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="action", required=True)
    add = actions.add_parser("add", help="serve one more model", description="Serve one more model.")
    add.add_argument("name", help="a Hub id, or a name that volunteers know")
    add.set_defaults(run=_add)
    show = actions.add_parser("list", help="show the models", description="Show the models that are served.")
    show.set_defaults(run=_list)
    remove = actions.add_parser(
        "remove", help="serve a model no longer", description="Serve a model no longer."
    )
    remove.add_argument("name")
    remove.set_defaults(run=_remove)
    forget = actions.add_parser(
        "forget",
        help="forget what volunteers reported of a model",
        description="Forget a model's digest and shape: the next volunteer reports them anew.",
    )
    forget.add_argument("name")
    forget.set_defaults(run=_forget)


def _add(settings: Settings, arguments: argparse.Namespace) -> int:
    is_new = run_with_store(settings, lambda store: store.add_model(arguments.name))
    explain(f"{arguments.name} is served from now on." if is_new else f"{arguments.name} is served already.")
    return 0


def _list(settings: Settings, arguments: argparse.Namespace) -> int:
    models = run_with_store(settings, lambda store: store.list_models())
    heading = ("NAME", "FROM", "BLOCKS", "CONTEXT", "FAMILY", "DIGEST", "REPORTED BY", "ADDED")
    print(columns(heading, [_row(model) for model in models]))
    return 0


def _row(model: ModelRecord) -> tuple[str, ...]:
    facts = model.facts
    known = (str(facts.blocks), str(facts.context), facts.family, facts.digest[:12]) if facts else ("-",) * 4
    source = "MODELS" if model.from_settings else "operator"
    return (model.name, source, *known, model.reported_by or "-", when(model.added_at))


def _remove(settings: Settings, arguments: argparse.Namespace) -> int:
    run_with_store(settings, lambda store: store.remove_model(arguments.name))
    explain(f"{arguments.name} is served no longer.")
    return 0


def _forget(settings: Settings, arguments: argparse.Namespace) -> int:
    run_with_store(settings, lambda store: store.forget_model_facts(arguments.name))
    explain(f"The next volunteer with {arguments.name} reports its digest and shape anew.")
    return 0
