"""A swarm with a spare for everything, of real processes, which all tests of this folder share and hurt.

Starting a volunteer takes seconds. So only the dead are replaced, while the next test runs already: a test
asks for the spares that it needs.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.models import TINY
from corolla.generation import Head
from corolla.head_steps import HeadSteps
from corolla.models.head import HeadModel
from corolla.models.source import ModelSource
from corolla.text import TextCodec
from tests.chaos.thicket import OTHER_MODEL, SPARES, Thicket
from tests.conftest import EXACT
from tests.corolla.tiny_text import inline
from tests.garden import MODEL, garden, make_model


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def shared_thicket(model: Path) -> Iterator[Thicket]:
    with garden(model, SPARES, EXACT, f"{MODEL},{OTHER_MODEL}") as planted:
        thicket = Thicket(planted)
        thicket.plant()
        yield thicket


@pytest.fixture
def thicket(shared_thicket: Thicket) -> Iterator[Thicket]:
    """The swarm, a volunteer for each block at least, and nothing going on; spares are on their way."""
    shared_thicket.mend()
    try:
        yield shared_thicket
    except BaseException:
        print(shared_thicket.garden.last_words())
        raise


@pytest.fixture(scope="session")
def head(model: Path) -> Head:
    """The model's head, for a driver in the test's own process."""
    torch.set_num_threads(1)
    loaded = HeadModel.load(ModelSource.open(str(model)))
    steps = HeadSteps(loaded, TINY.hidden, inline)
    return Head(loaded, TextCodec.load(model), TINY.hidden, TINY.context, True, inline, steps)
