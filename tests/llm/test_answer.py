"""Cutting an answer into events."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelit.llm.answer import AnswerDecoder, ServerEvent

STREAM = (
    b": hello\r\n\r\n"
    b"event: first\ndata: one\ndata:two\nid: 7\n\n"
    b"data: \xc3\xa4\r\n\r\n"
    b"event: empty\n\n"
    b"data: last\n\n"
)
EVENTS = [ServerEvent("first", "one\ntwo"), ServerEvent("", "ä"), ServerEvent("", "last")]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    """Any cutting of a stream gives the same events, comments and empty ones left out."""
    decoder = AnswerDecoder()
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(edges)]

    events = [event for piece in pieces for event in decoder.feed(piece)]

    assert events == EVENTS
    assert decoder.body is None


@given(st.integers(0, 14))
def test_a_body_is_told_by_its_first_character(cut: int) -> None:
    """JSON yields no events, however it is cut and whatever white space is before it."""
    decoder = AnswerDecoder()
    text = b' \n{"data": 1}\n'

    events = decoder.feed(text[:cut]) + decoder.feed(text[cut:])

    assert events == []
    assert decoder.body == text
