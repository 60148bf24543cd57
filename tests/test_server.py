"""The server over a real socket: what it answers, what it refuses, what it keeps."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import antiphon
from antiphon.config import SearchConfig
from antiphon.conversations import Conversations
from antiphon.faces.batching import Answer, Gone, Sizes
from antiphon.faces.guard import POLICY, Guard, Limits
from served import DATE, HEAD, Running, running, slow, until


@pytest.fixture(scope="module")
def dates() -> antiphon.Model:
    return antiphon.load("dates")


@pytest.fixture(scope="module")
def server(dates: antiphon.Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = str(tmp_path_factory.mktemp("store") / "kept.db")
    with running({"dates": dates, "again": dates}, store) as server:
        yield server


def test_an_answer_in_openais_format(server):
    status, told, _ = server.chat(DATE, model="dates")
    assert status == 200
    assert told["object"] == "chat.completion"
    assert told["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "1979-05-03"}, "finish_reason": "stop"}
    ]
    assert told["usage"] == {"prompt_tokens": 18, "completion_tokens": 11, "total_tokens": 29}


def test_a_stream_is_the_answer_in_pieces(server):
    events = server.events(DATE, stream_options={"include_usage": True})
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(pieces) == "1979-05-03"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["usage"]["completion_tokens"] == 11
    [beamed] = [p for e in server.events(DATE, beam=4) if (p := e["choices"][0]["delta"].get("content"))]
    assert beamed == "1979-05-03"


def test_pieces_come_as_they_are_made_and_joined_for_who_is_behind():
    async def main() -> None:
        answer = Answer("", SearchConfig(), live=True, loop=asyncio.get_running_loop())
        found: list[str] = []

        async def taking() -> None:
            async for piece in answer:
                found.append(piece)

        task = asyncio.ensure_future(taking())
        for piece in ("a", "b"):
            await asyncio.sleep(0)
            answer.give(piece)
            await asyncio.sleep(0.01)
        for piece in ("c", "d", None):
            answer.give(piece)
        await task
        assert found == ["a", "b", "cd"]
        late = Answer("", SearchConfig(), live=True, loop=asyncio.get_running_loop())
        late.give("e")
        late.give(Gone())
        assert await anext(late) == "e"
        with pytest.raises(Gone):
            await anext(late)

    asyncio.run(main())


def test_several_draws_are_those_of_their_seeds(server, dates):
    _, told, _ = server.chat(DATE, n=3, temperature=3.0, seed=5)
    draws = [choice["message"]["content"] for choice in told["choices"]]
    assert draws == ["".join(dates.stream(DATE, sample=True, temperature=3.0, seed=5 + n)) for n in range(3)]
    streamed = ["", "", ""]
    for event in server.events(DATE, n=3, temperature=3.0, seed=5):
        choice = event["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == draws


def test_a_model_that_ranks_its_draws_draws_once_here_unless_asked(dates):
    ranks = dates.config.search.model_copy(update={"sample": True, "mmi": 0.7, "candidates": 4})
    model = antiphon.Model(
        dates.engine,
        dates.source_tokenizer,
        dates.target_tokenizer,
        dates.config.model_copy(update={"search": ranks}),
        None,
    )
    with running({"dates": model}, None) as server:
        status, told, _ = server.chat(DATE, temperature=2.0, seed=5)
        assert status == 200
        assert told["choices"][0]["message"]["content"] == "".join(model.stream(DATE, temperature=2.0, seed=5))
        _, told, _ = server.chat(DATE, temperature=2.0, seed=5, mmi=0.7)
        assert told["choices"][0]["message"]["content"] == model.predict(DATE, temperature=2.0, seed=5).text

        _, told, _ = server.chat(DATE, temperature=0.1, n=8, mmi=0.7)
        assert [choice["index"] for choice in told["choices"]] == list(range(8)), "as many as were asked for"


def test_a_temperature_of_zero_is_greedy_and_most_tokens_are_kept_to(server):
    _, told, _ = server.chat(DATE, temperature=0, max_tokens=4)
    assert told["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "1979"},
        "finish_reason": "length",
    }


def test_predictions_are_the_models_own(server, dates):
    texts = [DATE, "", "Montag, den 11. Juli 2033"]
    _, told, _ = server.ask("POST", "/predict", {"texts": texts, "nbest": 2, "beam": 4, "attention": True})
    for record, prediction in zip(told["predictions"], dates.predict(texts, nbest=2, beam=4), strict=True):
        assert record["text"] == prediction.text
        assert record["score"] == pytest.approx(prediction.score, abs=1e-4)
        assert [other["text"] for other in record["alternatives"]] == [p.text for p in prediction.alternatives]
        assert record["source_tokens"] == prediction.source_tokens
        assert len(record["attention"]) == len(record["tokens"])


def test_scores_and_attention(server, dates):
    _, told, _ = server.ask("POST", "/score", {"pairs": [{"source": DATE, "target": "1979-05-03"}]})
    assert told["scores"][0]["nats"] == pytest.approx(dates.score([(DATE, "1979-05-03")])[0], abs=1e-4)
    assert told["scores"][0]["tokens"] == 11
    _, told, _ = server.ask("POST", "/attention", {"source": DATE, "target": "2000-01-01"})
    assert "".join(told["tokens"][:-1]) == "2000-01-01"
    assert len(told["attention"][0]) == len(told["source_tokens"]) == 18


def test_models_health_metrics_and_description(server):
    _, told, _ = server.ask("GET", "/v1/models")
    assert [one["id"] for one in told["data"]] == ["dates", "again"]
    assert told["data"][0]["antiphon"]["max_source"] > 10
    assert server.ask("GET", "/v1/models/again")[1]["id"] == "again"
    assert server.ask("GET", "/healthz")[1]["status"] == "ok"
    server.chat(DATE)
    page = server.ask("GET", "/metrics")[1]
    assert 'antiphon_requests_total{route="/v1/chat/completions",status="200"}' in page
    assert "antiphon_batch_rows_bucket" in page
    _, told, _ = server.ask("GET", "/openapi.json")
    assert {"/v1/chat/completions", "/predict", "/score", "/attention"} <= set(told["paths"])


def test_the_page_asks_nobody_else(server):
    for path in ("/", "/app.js", "/style.css", "/docs", "/docs.js", "/favicon.svg"):
        status, text, headers = server.ask("GET", path)
        assert status == 200
        assert headers["content-security-policy"] == POLICY
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
        assert "innerHTML" not in text
        assert "style=" not in text


def test_turns_are_kept_and_judged(server):
    _, first, _ = server.chat("hello\x00\u202e there")
    kept = first["antiphon"]
    again = {"conversation": kept["conversation"]}
    _, second, _ = server.chat(DATE, **again)
    assert second["antiphon"]["conversation"] == kept["conversation"]
    streamed = server.events(DATE, **again)[-1]["antiphon"]
    for turn, judgement in ((kept["turn"], {"thumb": 1}), (streamed["turn"], {"better": " 3 May\n1979 "})):
        assert server.ask("PUT", f"/turns/{turn}", judgement)[0] == 204
    _, told, _ = server.ask("GET", f"/conversations/{kept['conversation']}")
    assert [turn["said"] for turn in told["turns"]] == ["hello there", DATE, DATE]
    assert [turn["thumb"] for turn in told["turns"]] == [1, 0, 0]
    assert [turn["better"] for turn in told["turns"]] == [None, None, "3 May 1979"]
    assert server.ask("DELETE", f"/conversations/{kept['conversation']}")[0] == 204
    assert server.ask("GET", f"/conversations/{kept['conversation']}")[0] == 404
    assert server.ask("DELETE", f"/conversations/{kept['conversation']}")[0] == 404
    assert server.ask("PUT", f"/turns/{kept['turn']}", {"thumb": 1})[0] == 404


def test_what_is_not_to_be_kept_is_not(server, dates):
    assert server.chat(DATE, store=False)[1]["antiphon"]["conversation"] is None
    with running({"dates": dates}) as other:
        told = other.chat(DATE)[1]["antiphon"]
        assert told == {"source": DATE, "conversation": None, "turn": None}
        assert other.ask("GET", "/conversations/x")[0] == 404


def test_earlier_turns_are_read_where_the_model_was_trained_with_them():
    model = antiphon.load("dates")
    data = model.config.data.model_copy(update={"context": 1})
    model.config = model.config.model_copy(update={"data": data})
    talk = [("system", "be brief"), ("user", "one"), ("assistant", "two"), ("user", "three")]
    messages = [{"role": role, "content": text} for role, text in talk]
    messages[-1]["content"] = [{"type": "text", "text": "three"}]
    with running({"dates": model}) as server:
        told = server.ask("POST", "/v1/chat/completions", {"messages": messages})[1]
    assert told["antiphon"]["source"] == "two <turn> three"


def test_of_a_long_conversation_only_what_is_read_is_looked_at(server):
    talk = [{"role": role, "content": "x" * 5000} for _ in range(100) for role in ("user", "assistant")]
    status, told, _ = server.ask(
        "POST", "/v1/chat/completions", {"messages": [*talk, {"role": "user", "content": DATE}]}
    )
    assert (status, told["antiphon"]["source"]) == (200, DATE)


def test_what_openai_lets_be_null_may_be_null(server):
    fields = {"n": None, "stream": None, "stop": None, "max_tokens": None, "temperature": None, "top_p": 0}
    fields |= {"model": None, "stream_options": None}
    call = {"role": "assistant", "content": None, "tool_calls": []}
    messages = [
        call,
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "tool", "content": "42"},
        {"role": "user", "content": DATE},
    ]
    status, told, _ = server.ask("POST", "/v1/chat/completions", {"messages": messages, **fields})
    assert status == 200
    assert [choice["message"]["content"] for choice in told["choices"]] == ["1979-05-03"]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/chat/completions", b"{", 422, "JSON"),
        ("/v1/chat/completions", b"\xff\xfe", 422, "JSON"),
        ("/v1/chat/completions", b"[" * 100_000, 400, "parsing"),
        ("/v1/chat/completions", {"messages": []}, 422, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, 422, "last message"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": None}]}, 422, "must have a content"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422, "but text"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "model": "gpt"}, 404, "dates, again"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "n": 17}, 422, "16 at most"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "conversation": "a"}, 422, "pattern"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 4001}]}, 422, "4,000 characters"),
        ("/predict", {"texts": ["x"] * 65}, 422, "64 texts"),
        ("/predict", {"texts": ["x"], "nbest": 17}, 422, "16 at most"),
        ("/predict", {"texts": ["x"], "beam": 17}, 422, "16 at most"),
        ("/predict", {"texts": ["x"], "beam": 2, "nbest": 3}, 400, "nbest 3 is more than beam 2"),
        ("/predict", {"texts": ["x"], "bean": 2}, 422, "bean"),
        ("/predict", {"texts": ["x"], "seed": 2**70}, 422, "seed"),
        ("/score", {"pairs": []}, 422, "pairs"),
    ],
)
def test_what_cannot_be_is_told(server, path, body, status, message):
    found, told, _ = server.ask("POST", path, body)
    assert (found, told["error"]["code"]) == (status, status)
    assert message in told["error"]["message"]


def test_half_a_character_is_answered(server):
    status, told, _ = server.ask("POST", "/predict", b'{"texts": ["\\ud800"]}')
    assert (status, told["predictions"][0]["source"]) == (200, "?")
    body = b'{"messages": [{"role": "user", "content": "\\ud800 \\u0000"}]}'
    assert server.ask("POST", "/v1/chat/completions", body)[0] == 200


def test_a_body_too_large_is_refused_in_words_and_the_connection_lives(server):
    status, told, _ = server.ask("POST", "/predict", b"x" * (10 << 20))
    assert status == 413
    assert "1,048,576 bytes" in told["error"]["message"]
    assert server.ask("GET", "/healthz")[0] == 200


def test_strangers_stay_outside(server, dates):
    assert server.ask("GET", "/healthz", Host="evil.example")[0] == 403
    assert server.ask("POST", "/predict", {"texts": ["x"]}, Origin="http://evil.example")[0] == 403
    own = f"http://127.0.0.1:{server.port}"
    assert server.ask("POST", "/predict", {"texts": ["x"]}, Origin=own, Host=own[7:])[0] == 200
    with running({"dates": dates}, token="secret", hosts=None) as other:
        assert other.ask("GET", "/v1/models", Host="any.example")[0] == 401
        assert other.ask("GET", "/v1/models", Authorization="Bearer wrong")[0] == 401
        assert other.ask("GET", "/v1/models", Authorization="Bearer secret", Host="any.example")[0] == 200
        assert other.ask("GET", "/")[0] == 200
        assert other.ask("GET", "/healthz")[0] == 200


def test_requests_that_meet_are_decoded_together():
    model = slow(0.02)
    with running({"dates": model}) as server, ThreadPoolExecutor(24) as pool:
        streams = [pool.submit(server.events, DATE) for _ in range(12)]
        plain = [pool.submit(server.chat, DATE, beam=2) for _ in range(12)]
        assert {told.result()[1]["choices"][0]["message"]["content"] for told in plain} == {"1979-05-03"}
        for told in streams:
            text = "".join(event["choices"][0]["delta"].get("content", "") for event in told.result())
            assert text == "1979-05-03"
    rows = model.engine.rows
    assert max(rows) >= 8
    assert len(rows) < 24 * 11 / 2


def test_a_large_request_is_answered_in_parts_and_others_between_them(dates):
    texts = [f"{day} de mayo de 1979" for day in range(1, 25)]
    drawn = {"sample": True, "seed": 3, "temperature": 2.0}
    with running({"dates": slow(0.02)}, sizes=Sizes(rows=8)) as server, ThreadPoolExecutor(2) as pool:
        large = pool.submit(server.ask, "POST", "/predict", {"texts": texts, "beam": 2})
        until(server.decoding)
        assert server.chat(DATE, beam=3)[1]["choices"][0]["message"]["content"] == "1979-05-03"
        assert not large.done()
        found = [record["text"] for record in large.result()[1]["predictions"]]
        assert found == [one.text for one in dates.predict(texts, beam=2)]
        found = server.ask("POST", "/predict", {"texts": texts, **drawn})[1]["predictions"]
        assert [record["text"] for record in found] == [one.text for one in dates.predict(texts, **drawn)]


def test_a_large_request_that_is_given_up_ends_with_its_part():
    model = slow(0.02)
    texts = [f"{day} de mayo de 1979" for day in range(1, 25)]
    with running({"dates": model}, limits=Limits(seconds=0.3), sizes=Sizes(rows=4)) as server:
        assert server.ask("POST", "/predict", {"texts": texts, "beam": 2})[0] == 408
        until(lambda: server.decoding() == 0)
        steps = len(model.engine.rows)
        time.sleep(0.2)
        assert len(model.engine.rows) == steps < 12 * 11


def test_a_full_queue_says_when_to_come_again():
    with running({"dates": slow(0.1)}, sizes=Sizes(rows=2, queue=2)) as server, ThreadPoolExecutor(12) as pool:
        told = [asked.result() for asked in [pool.submit(server.chat, DATE) for _ in range(12)]]
        assert {status for status, *_ in told} == {200, 429}
        assert {headers["retry-after"] for status, _, headers in told if status == 429} == {"1"}
        beams = [asked.result() for asked in [pool.submit(server.chat, DATE, beam=4) for _ in range(12)]]
        assert {status for status, *_ in beams} <= {200, 429}
        assert server.chat(DATE)[0] == 200


def test_an_answer_that_takes_too_long_is_given_up():
    model = slow(0.2)
    with running({"dates": model}, limits=Limits(seconds=0.5)) as server:
        status, told, _ = server.chat(DATE)
        assert status == 408
        assert "0.5 seconds" in told["error"]["message"]
        assert server.chat(DATE, beam=2)[0] == 408
        assert "error" in server.events(DATE)[-1]
        until(lambda: server.decoding() == 0)
        assert len(model.engine.rows) < 2 * 11


def test_who_hangs_up_frees_the_row():
    model = slow(0.2)
    with running({"dates": model}) as server:
        for stream in (True, False):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                body = json.dumps({"stream": stream, "messages": [{"role": "user", "content": DATE}]}).encode()
                connection.sendall(HEAD.format(len(body)).encode() + body)
                until(lambda: server.decoding() == 1)
            until(lambda: server.decoding() == 0)
    assert len(model.engine.rows) < 2 * 11


def test_more_requests_at_once_than_are_allowed_are_told_to_come_again():
    async def main() -> None:
        release, seen = asyncio.Event(), []

        async def app(scope, receive, send):
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        guard = Guard(
            app, limits=Limits(open=2), token=None, hosts=None, observe=lambda scope, status, _: seen.append(status)
        )

        async def ask() -> list[Any]:
            told: list[Any] = []

            async def send(message):
                told.append(message)

            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            await guard(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]
            return told

        going = [asyncio.ensure_future(ask()) for _ in range(2)]
        await asyncio.sleep(0)
        start, body = await asyncio.wait_for(ask(), 5)
        assert start["status"] == 429
        assert (b"retry-after", b"1") in start["headers"]
        error = json.loads(body["body"])["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", 429)
        assert "too many requests at once" in error["message"]
        release.set()
        assert [told[0]["status"] for told in await asyncio.gather(*going)] == [200, 200]
        assert [told["status"] for told in (await ask())[:1]] == [200], "who has gone makes room"
        assert seen == [429, 200, 200, 200]

    asyncio.run(main())


def test_half_requests_and_slow_bodies_keep_nobody_else_waiting(dates):
    with running({"dates": dates}, limits=Limits(seconds=1.0)) as server:
        held = []
        for start in (b"", b"GET / HT", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"):
            for _ in range(20):
                connection = socket.create_connection(("127.0.0.1", server.port))
                connection.sendall(start)
                held.append(connection)
        assert server.chat(DATE)[0] == 200
        held[-1].settimeout(5)
        assert held[-1].recv(64).startswith(b"HTTP/1.1 408")
        for connection in held:
            connection.close()
        assert server.chat(DATE)[0] == 200


def test_a_fault_in_decoding_is_told_to_those_it_concerns_and_the_server_lives():
    model = antiphon.load("dates")
    step = model.engine.step

    def failing(y, state, memory, k):
        if len(memory.values["mask"][0]) == 4:
            raise antiphon.UsageError("this text cannot be")
        return step(y, state, memory, k)

    model.engine.step = failing  # type: ignore[method-assign]
    with running({"dates": model}) as server:
        assert server.chat("abc")[0] == 400
        assert server.chat("abc", beam=3)[0] == 400
        assert server.chat(DATE)[1]["choices"][0]["message"]["content"] == "1979-05-03"
        assert server.ask("GET", "/healthz")[1]["decoding"] == 0


def test_a_store_that_fails_is_told_alike_whole_and_streamed(dates, tmp_path):
    with running({"dates": dates}, str(tmp_path / "kept.db")) as server:
        with sqlite3.connect(tmp_path / "kept.db") as database:
            database.execute("DROP TABLE turns")
        status, told, _ = server.chat(DATE)
        assert (status, told["error"]["code"]) == (503, 503)
        streamed = server.events(DATE)[-1]
        assert streamed["error"] == told["error"]
        assert str(tmp_path) not in json.dumps(streamed)


def test_the_command_serves_and_ends(tmp_path: Path):
    command = [sys.executable, "-m", "antiphon", "serve", "dates", "--port", "0", "--store", str(tmp_path / "kept.db")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("serving dates on http://127.0.0.1:")
        server = Running(int(line.split(":")[2].split()[0]), None)
        for _ in range(100):
            try:
                turn = server.chat(DATE)[1]["antiphon"]["turn"]
                break
            except OSError:
                time.sleep(0.05)
        process.kill()  # no goodbye: what was answered is kept
    store = Conversations(tmp_path / "kept.db")
    assert [kept.id for kept in store.every_turn()] == [turn]
    store.close()


def test_answering_needs_no_pytorch(tmp_path: Path):
    code = (
        "import sys; import antiphon.faces.service as s; m = s.load_all(['dates']); "
        "from antiphon.faces.server import Service, create_app; create_app(m, None, Service()); "
        "print([name for name in ('torch', 'safetensors', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_openais_own_client_talks_to_it(server):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none")
    asked = [{"role": "user", "content": DATE}]
    told = client.chat.completions.create(model="dates", messages=asked)
    assert told.choices[0].message.content == "1979-05-03"
    stream = client.chat.completions.create(model="dates", messages=asked, stream=True)
    pieces = [event.choices[0].delta.content or "" for event in stream]
    assert "".join(pieces) == "1979-05-03"
    assert [one.id for one in client.models.list()] == ["dates", "again"]
    with pytest.raises(openai.NotFoundError, match="no model of that name"):
        client.chat.completions.create(model="gpt-4", messages=asked)
    client.close()


def test_fetch_talks_to_it(server):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    script = f"""
    const ask = (body) => fetch("http://127.0.0.1:{server.port}/v1/chat/completions", {{
      method: "POST", headers: {{"Content-Type": "application/json"}},
      body: JSON.stringify({{messages: [{{role: "user", content: "{DATE}"}}], ...body}})}});
    const whole = await (await ask({{}})).json();
    let text = "", streamed = "";
    for await (const part of (await ask({{stream: true}})).body.pipeThrough(new TextDecoderStream())) text += part;
    for (const line of text.split("\\n\\n")) if (line.startsWith("data: {{"))
      streamed += JSON.parse(line.slice(6)).choices[0].delta.content ?? "";
    console.log(whole.choices[0].message.content, streamed);
    """
    done = subprocess.run([node, "--input-type=module", "-e", script], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "1979-05-03 1979-05-03", done.stderr
