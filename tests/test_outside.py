"""The server as strangers find it: a fuzzer over its own description of itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

import antiphon
from antiphon.faces.guard import Limits
from served import Running, running

schemathesis = pytest.importorskip("schemathesis")
EXAMPLES = int(os.environ.get("EXAMPLES", "30"))
"""Requests to each operation."""

response_schema_conformance = pytest.importorskip("schemathesis.specs.openapi.checks").response_schema_conformance


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = Limits(tokens=32)
    with running({"dates": antiphon.load("dates")}, str(tmp_path_factory.mktemp("s") / "kept.db"), limits=limits) as it:
        yield it


def test_whatever_is_asked_the_server_does_not_fail(server):
    description = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    checks = [schemathesis.checks.not_a_server_error, response_schema_conformance]
    operations = [found.ok() for found in description.get_all_operations()]
    assert len(operations) >= 11
    for operation in operations:

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case):
            case.call_and_validate(checks=checks, timeout=20)

        ask()
        assert server.ask("GET", "/healthz")[0] == 200
