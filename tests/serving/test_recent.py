"""What came last, numbered."""

from __future__ import annotations

from asof.serving.recent import Recent


def told(recent: Recent, *names: str) -> None:
    for name in names:
        recent.append("fs", "1m", name, name.encode())


def test_what_came_after_a_number_is_told_in_order_and_so_many_at_a_time() -> None:
    recent = Recent(8)
    told(recent, *"abcde")
    found = recent.after(1, 3)
    assert found is not None
    assert [(one.number, one.instrument, one.line) for one in found] == [(2, "b", b"b"), (3, "c", b"c"), (4, "d", b"d")]
    assert recent.after(5, 3) == []


def test_what_is_kept_no_longer_and_numbers_of_nobody_are_told_apart_from_nothing_new() -> None:
    recent = Recent(4)
    told(recent, *"abcdefgh")
    assert [len(recent.after(number, 10) or ()) for number in (4, 5, 8)] == [4, 3, 0]
    assert [recent.after(number, 10) for number in (-1, 0, 3, 9)] == [None] * 4


def test_one_that_is_written_over_while_it_is_read_is_not_taken_for_another() -> None:
    recent = Recent(4)
    told(recent, *"abcd")
    recent._kept[2] = recent._kept[1]
    assert recent.after(0, 10) is None


def test_those_who_listen_are_told_until_they_do_not_want_to_be() -> None:
    recent, heard = Recent(4), []
    end = recent.listen(lambda: heard.append(recent.last))
    told(recent, "a", "b")
    recent.announce()
    end()
    end()
    recent.announce()
    assert heard == [2]


def test_two_memories_have_two_epochs() -> None:
    assert Recent(1).epoch != Recent(1).epoch


def test_whoever_was_at_the_last_one_sees_that_all_was_forgotten() -> None:
    recent = Recent(8)
    told(recent, "a", "b")
    before = recent.epoch
    recent.forget()
    assert recent.after(2, 10) is None
    assert recent.after(recent.last, 10) == []
    assert recent.epoch != before
