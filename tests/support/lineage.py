"""An OpenLineage backend over HTTP, and what a valid event is."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Any

import attr


@dataclass
class Backend:
    """What a backend was sent.

    Attributes:
        url: Where it listens.
        events: In the order of their arrival.
        headers: Of each of them.
    """

    url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def states(self) -> list[str]:
        return [event["eventType"] for event in self.events]


@contextmanager
def backend(status: int = 201, hangs: bool = False) -> Iterator[Backend]:
    """A server that answers each event with a status; one that hangs never answers."""
    got, end = Backend(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/api/v1/lineage"
            got.events.append(json.loads(body))
            got.headers.append(dict(self.headers))
            if hangs:
                end.wait()
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    got.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield got
    finally:
        end.set()
        server.shutdown()
        thread.join()
        server.server_close()


def problems(event: dict[str, Any]) -> list[str]:
    """What of an event, as JSON, the classes of the library do not have, or miss.

    The library ships no JSON schema. Its classes are generated from the schemas of the spec, and
    each says by `_get_schema` which one it is of.
    """
    from openlineage.client import event_v2, facet_v2

    modules = [m for m in vars(facet_v2).values() if isinstance(m, ModuleType)]
    values = [value for module in modules for value in vars(module).values()]
    classes = [value for value in values if isinstance(value, type) and attr.has(value)]
    by_schema = {each._get_schema(): each for each in classes if hasattr(each, "_get_schema")}
    found: list[str] = []

    def check(value: dict[str, Any], kind: type, where: str, *maps: str) -> None:
        fields = {each.name: each for each in attr.fields(kind)}
        found.extend(f"{where}: {key} is unknown" for key in value.keys() - fields.keys())
        for name, each in fields.items():
            if each.default is attr.NOTHING and name not in value:
                found.append(f"{where}: {name} is missing")
        for key in value.keys() & {*maps}:
            for name, facet in value[key].items():
                facet_class = by_schema.get(facet["_schemaURL"])
                if facet_class is None:
                    found.append(f"{where}.{name}: {facet['_schemaURL']} is unknown")
                else:
                    check(facet, facet_class, f"{where}.{name}")

    check(event, event_v2.RunEvent, "event")
    check(event["run"], event_v2.Run, "run", "facets")
    check(event["job"], event_v2.Job, "job", "facets")
    for dataset in event["inputs"]:
        check(dataset, event_v2.InputDataset, dataset["name"], "facets", "inputFacets")
    for dataset in event["outputs"]:
        check(dataset, event_v2.OutputDataset, dataset["name"], "facets", "outputFacets")
    # Their validators: times, UUIDs, URIs.
    event_v2.Run(event["run"]["runId"])
    event_v2.RunEvent(eventTime=event["eventTime"], producer=event["producer"], run=None, job=None)
    return found
