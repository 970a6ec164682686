"""OpenVINO: the suite, and what is its own."""

from __future__ import annotations

from suite import Suite


class TestOpenVINO(Suite):
    name = "openvino"
    suffix = ".xml"
    hidden = {"lstm": "recurrent layers lose their names"}  # noqa: RUF012
