"""The server as strangers find it: a fuzzer over its own description of itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import antiphon
from antiphon.faces.guard import Limits
from served import Running, running

schemathesis = pytest.importorskip("schemathesis")
response_schema_conformance = pytest.importorskip("schemathesis.specs.openapi.checks").response_schema_conformance


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = Limits(tokens=32)
    with running({"dates": antiphon.load("dates")}, str(tmp_path_factory.mktemp("s") / "kept.db"), limits=limits) as it:
        yield it


@pytest.fixture(scope="module")
def description(server: Running):
    return schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")


description_of_itself = schemathesis.pytest.from_fixture("description")


@description_of_itself.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_asked_the_server_does_not_fail(case):
    checks = [schemathesis.checks.not_a_server_error, response_schema_conformance]
    case.call_and_validate(checks=checks, timeout=20)
