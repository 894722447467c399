"""The tables of `corolla models` and `corolla swarm`: a status in, text out."""

from corolla.cli.swarm import models_table, volunteers_table
from schema.swarm import ModelStatus, VolunteerStatus

SERVED = ModelStatus(id="llama", blocks=80, context=8192, complete=True, heads=2)
MISSING = ModelStatus(id="bloom", reason="blocks 8-11 have no volunteer")
FIRST = VolunteerStatus(
    id="a",
    name="rose",
    state="serving",
    device="NVIDIA H100",
    model="llama",
    start=0,
    end=40,
    head=True,
    dtype="bfloat16",
    sessions=3,
    blocks_per_second=1234.56,
    score=0.934,
)
LAST = VolunteerStatus(id="b", name="iris", state="paused", device="CPU", model="llama", start=40, end=80)
LOADING = VolunteerStatus(id="c", name="\x1b[2J", state="loading", device="CPU", done=3, total=9)


def test_a_model_is_a_row_with_why_it_is_not_served() -> None:
    assert models_table([SERVED, MISSING]).splitlines() == [
        "MODEL  SERVED  LAYERS  CONTEXT  HEADS  WHY NOT",
        "llama  yes         80     8192      2",
        "bloom  no           -        -      0  blocks 8-11 have no volunteer",
    ]


def test_a_volunteer_is_a_row_and_they_are_in_the_order_of_their_blocks() -> None:
    assert volunteers_table([LOADING, LAST, FIRST]).splitlines() == [
        "NAME     STATE        MODEL  BLOCKS  HEAD  DEVICE       DTYPE     SESSIONS  BLOCKS/S  SCORE",
        "rose     serving      llama  0-39    yes   NVIDIA H100  bfloat16         3    1234.6   0.93",
        "iris     paused       llama  40-79         CPU          -                0         -      -",
        "\\x1b[2J  loading 33%  -      -             CPU          -                0         -      -",
    ]
