"""Conversations kept: the same laws on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy

from antiphon.conversations import Conversations, Keeper, Turn, as_json, new_id
from antiphon.errors import DataError, SaveError, UsageError
from antiphon.faces.cli import main
from postgres import postgres, programs


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("psycopg")
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with postgres(tmp_path_factory.mktemp("postgres")) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "kept.db")
        return
    url = request.getfixturevalue("server")
    yield url
    engine = sqlalchemy.create_engine(url.replace("postgresql", "postgresql+psycopg"))
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE turns, conversations"))
    engine.dispose()


@pytest.fixture
def store(address: str) -> Iterator[Conversations]:
    kept = Conversations(address)
    yield kept
    kept.close()


def turn(conversation: str, said: str = "hello", **fields) -> Turn:
    return Turn(conversation, said, fields.pop("answer", said.upper()), said, fields.pop("model", "chat"), **fields)


HARD = ["", "'; DROP TABLE turns; --", "<script>alert(1)</script>", "😀 مرحبا\u202e", "a\tb\nc", "x" * 100_000]


def test_what_is_kept_comes_back(store, address):
    turns = [turn(f"talk-{place % 2}", said) for place, said in enumerate(HARD)]
    store.add(turns[:1])
    store.add(turns[1:])
    assert list(store.every_turn()) == turns
    assert store.turns("talk-1") == turns[1::2]
    assert store.turns("none") == []
    other = Conversations(address, create=False)
    assert list(other.every_turn()) == turns
    other.close()


def test_the_list_begins_with_the_last_changed(store):
    now = datetime.now(UTC)
    store.add([turn("old", "first", created=now - timedelta(days=3)), turn("new", "second", created=now)])
    store.add([turn("old", "third", created=now - timedelta(days=2))])
    found = store.list()
    assert [(one.id, one.turns, one.title) for one in found] == [("new", 1, "second"), ("old", 2, "first")]
    assert found[1].begun == now - timedelta(days=3)
    assert found[1].changed == now - timedelta(days=2)
    assert [one.id for one in store.list(limit=1)] == ["new"]


def test_judgements_stand_beside_the_answer(store):
    kept = turn("talk")
    store.add([kept])
    assert store.judge(kept.id, thumb=1)
    assert store.judge(kept.id, better="hi")
    assert store.judge(kept.id)
    [found] = store.turns("talk")
    assert (found.answer, found.thumb, found.better) == ("HELLO", 1, "hi")
    assert store.judge(kept.id, thumb=0, better="")
    assert (store.turns("talk")[0].thumb, store.turns("talk")[0].better) == (0, None)
    assert not store.judge("none", thumb=1)
    assert not store.judge("none")


def test_deleted_is_gone_with_its_turns(store):
    old = datetime.now(UTC) - timedelta(days=10)
    store.add([turn("one"), turn("two"), turn("aged", created=old), turn("two")])
    assert store.delete(["one", "none"]) == 1
    assert store.delete_older(9) == 1
    assert [kept.conversation for kept in store.every_turn()] == ["two", "two"]


def test_a_group_is_kept_whole_or_not_at_all(store):
    first = turn("talk")
    store.add([first])
    with pytest.raises(SaveError, match="conversations cannot be kept"):
        store.add([turn("talk", "fine"), first])
    assert store.turns("talk") == [first]


def test_many_keep_at_once_and_each_hears_of_it(store):
    keeper = Keeper(store)
    turns = [turn(f"talk-{place % 7}", str(place)) for place in range(300)]
    heard: list[Exception | None] = []
    done = threading.Semaphore(0)

    def hear(failure: Exception | None) -> None:
        heard.append(failure)
        done.release()

    for one in turns:
        keeper.keep(one, hear)
    for _ in turns:
        assert done.acquire(timeout=20)
    assert heard == [None] * 300
    keeper.keep(turns[0], hear)  # the same id once more cannot be kept, and that is told
    assert done.acquire(timeout=20)
    assert isinstance(heard[-1], SaveError)
    keeper.close()
    assert sorted(kept.id for kept in store.every_turn()) == sorted(one.id for one in turns)


def test_retention_forgets(store):
    store.add([turn("aged", created=datetime.now(UTC) - timedelta(days=40)), turn("young")])
    keeper = Keeper(store, days=30)
    keeper.close()
    assert [kept.conversation for kept in store.every_turn()] == ["young"]


def test_a_retention_longer_than_the_calendar_forgets_nothing(store):
    heard: list[Exception | None] = []
    keeper = Keeper(store, days=1e9)
    keeper.keep(turn("young"), heard.append)
    keeper.close()
    assert heard == [None]
    assert store.delete_older(1e9) == 0
    assert [kept.conversation for kept in store.every_turn()] == ["young"]


def test_the_command(store, address, tmp_path, capsys):
    talk = [turn("talk-0123456789abc", "hello", thumb=1), turn("talk-0123456789abc", "and\x1b you?", better="fine")]
    store.add([*talk, turn("other-0123456789", "x")])

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["conversations", *words, "--store", address])
        told = capsys.readouterr()
        return code, told.out, told.err

    code, out, _ = run("list")
    assert code == 0
    assert out.splitlines()[0].split() == ["id", "last", "turn", "turns", "model", "begins"]
    assert {line.split()[0] for line in out.splitlines()[1:]} == {"talk-0123456789abc", "other-0123456789"}
    assert run("show", "talk-0123456789abc")[1].splitlines() == [
        "HUMAN ++++ hello",
        "BOT ++++ HELLO  (liked)",
        "HUMAN ++++ and you?",
        "BOT ++++ AND YOU?",
        "BETTER ++++ fine",
        "=" * 45,
    ]
    assert run("export", "talk-0123456789abc")[1].splitlines() == [
        as_json(one).replace("\x1b", "\\u001b") for one in talk
    ]
    assert run("export", "--out", str(tmp_path / "talks.dialogue"))[0] == 0
    lines = (tmp_path / "talks.dialogue").read_text().splitlines()
    assert lines == ["hello\tHELLO\tand\x1b you?\tfine", "x\tX"]
    again = [turn("again-0123456789", "hi", answer="no"), turn("again-0123456789", "hi", answer="yes")]
    store.add(
        [*again, turn("again-0123456789", "oh", thumb=-1), turn("again-0123456789", "so"), turn("worst", thumb=-1)]
    )
    assert run("export", "--out", str(tmp_path / "talks.dialogue"))[0] == 0
    lines = (tmp_path / "talks.dialogue").read_text().splitlines()
    assert lines[2:] == ["hi\tyes\toh", "so\tSO"], "what nobody should learn is left out"
    liked = [turn("liked", "hi", answer="yes", thumb=1), turn("liked", "hi", answer="no", thumb=-1)]
    store.add([*liked, turn("golden", "hi", answer="no", better="gold"), turn("golden", "hi", answer="meh", thumb=1)])
    assert run("export", "--out", str(tmp_path / "talks.dialogue"))[2].startswith("6 lines")
    lines = (tmp_path / "talks.dialogue").read_text().splitlines()
    assert lines[4:] == ["hi\tyes", "hi\tgold"], "what people thought of an answer is not lost"
    assert run("delete", "again-0123456789", "worst", "liked", "golden")[0] == 0
    assert run("delete", "talk-0123456789abc")[2] == "1 deleted\n"
    assert run("delete", "--older-than", "1")[2] == "0 deleted\n"
    for words in (["show"], ["show", "none"], ["delete"], ["delete", "none"], ["delete", "x", "--older-than", "1"]):
        code, out, err = run(*words)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    assert len(store.list()) == 1


def test_a_store_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    path = tmp_path / "kept #1.db"
    kept = Conversations(path)
    kept.add([turn("talk")])
    kept.close()
    monkeypatch.setattr("antiphon.conversations.os.access", lambda *_: False)
    store = Conversations(path, create=False)
    assert [one.said for one in store.every_turn()] == ["hello"]
    with pytest.raises(SaveError):
        store.delete(["talk"])
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept #1.db"]


def test_addresses_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="no such store"):
        Conversations(tmp_path / "none.db", create=False)
    with pytest.raises(UsageError, match="no store on mysql"):
        Conversations("mysql://localhost/x")
    for address in ("", ":memory:", "sqlite://"):
        with pytest.raises(UsageError, match="in memory"):
            Conversations(address)
    with pytest.raises(UsageError, match="no database URL"):
        Conversations("://")
    (tmp_path / "text.db").write_text("this is no database, and it is long enough to be read as a header\n" * 20)
    with pytest.raises(DataError, match="cannot be read"):
        Conversations(tmp_path / "text.db")
    with pytest.raises(DataError, match="cannot be read") as refused:
        Conversations("postgresql://someone:secret@127.0.0.1:1/x")
    assert "secret" not in str(refused.value)


def test_ids_cannot_be_guessed():
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert min(map(len, ids)) >= 20
