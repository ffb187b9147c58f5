"""What the page answers of runs that ended in every way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow import Flow
from asyncflow.page.report import report
from tests.support.page_stores import MARKUP, RUNS, acting, addresses, asking, every_kind

STATUS = {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the store is."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def client(folder):
    """Of a page on a store with a run of every kind."""
    with asking(every_kind(folder / "store", folder / "touched")) as client:
        yield client


def told(client, address):
    """What is answered, which is to be JSON of a bounded size."""
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) <= 200_000
    return answer.json()


def run_of(kind):
    """The address of a run."""
    return f"/api/runs/Made/{RUNS[kind]}"


# --- runs ---------------------------------------------------------------------------------------


def test_the_list_has_every_run_newest_first(client):
    """One that cannot be read has a row, too, that says why."""
    found = told(client, "/api/runs")
    assert [row["run_id"] for row in found["runs"]] == sorted(RUNS.values(), reverse=True)
    assert found["flows"] == [{"flow": "Made", "runs": len(RUNS)}]
    rows = {row["run_id"]: row for row in found["runs"]}
    assert rows[RUNS["newer"]]["status"] == "unreadable"
    assert "upgrade asyncflow" in rows[RUNS["newer"]]["message"]
    assert rows[RUNS["succeeded"]]["done"] == rows[RUNS["succeeded"]]["total"] == 7


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        ("status=failed", ["failed"]),
        ("status=failed&status=interrupted", ["interrupted", "failed"]),
        ("status=unreadable", ["newer"]),
        ("tag=nightly", ["succeeded"]),
        ("text=NIGHT", ["succeeded"]),
        (f"text={RUNS['failed']}", ["failed"]),
        ("flow=Made&limit=2", ["hostile", "newer"]),
        (f"limit=2&after={RUNS['newer']}", ["damaged", "interrupted"]),
        ("since=2026-11-23T22:24:42Z&status=failed", ["failed"]),
        ("since=2027-11-23", []),
        ("before=2026-11-23T22:24:42Z", []),
    ],
)
def test_the_list_is_filtered(client, asked, kinds):
    """By flow, status, tag, time and text, page by page."""
    found = told(client, f"/api/runs?{asked}")["runs"]
    assert [row["run_id"] for row in found] == [RUNS[kind] for kind in kinds]


@pytest.mark.parametrize("kind", RUNS)
def test_every_answer_about_a_run_says_what_is_known(client, kind):
    """Of no run does the page fail; what it cannot tell, it says why."""
    for address in addresses(kind):
        answer = client.get(address)
        assert answer.status_code in {200, 400, 404, 409, 422}, (address, answer.text)
        assert len(answer.content) <= 200_000
        if answer.status_code != 200:
            assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        ("succeeded", "succeeded", ""),
        ("failed", "failed", "asyncflow resume"),
        ("cancelled", "cancelled", "asyncflow resume"),
        ("interrupted", "interrupted", "asyncflow resume"),
        ("newer", "unreadable", ""),
    ],
)
def test_a_run_says_how_it_stands_and_what_to_do(client, kind, status, said):
    """With the command that goes on from there."""
    found = told(client, run_of(kind))
    assert found["run"]["status"] == status
    assert said in ((found["what_now"] or {}).get("command") or "")
    assert (found["problem"] is None) == (kind != "newer")
    assert found["run"]["so_far"] is None  # it does not go on: its age is not how long it took


def test_a_damaged_run_shows_what_is_known(client):
    """Its graph and counts, and the command that says what else is affected."""
    found = told(client, run_of("damaged"))
    assert [step["begun"] for step in found["steps"]] == [1, 4, 0, 0]
    problem = client.get(f"{run_of('damaged')}/timeline").json()["error"]
    assert "damaged" in problem["message"]
    assert problem["do"] == f"asyncflow verify Made/{RUNS['damaged']}"


def test_the_steps_are_counted(client):
    """Each with what will be expected, also those that have not begun."""
    steps = {step["step"]: step for step in told(client, run_of("failed"))["steps"]}
    assert steps["work"]["expected"] == 4
    assert (steps["work"]["begun"], steps["work"]["succeeded"], steps["work"]["failed"]) == (
        2,
        1,
        1,
    )
    assert steps["work"]["retried"] == 1
    assert steps["join"]["begun"] == 0


def test_the_critical_path_leads_to_the_last_task(client):
    """Through the parent that ended last, each time."""
    path = told(client, run_of("succeeded"))["critical"]["path"]
    assert [(row["step"], row["task_id"]) for row in path] == [
        ("start", "1"),
        ("work", "5"),
        ("join", "6"),
        ("end", "7"),
    ]


# --- tasks, log, events -------------------------------------------------------------------------


def test_tasks_come_failed_first_and_are_found(client):
    """By id, by index, and by state."""
    tasks = told(client, f"{run_of('failed')}/tasks")["tasks"]
    assert [task["status"] for task in tasks] == ["failed", "succeeded", "succeeded"]
    assert tasks[0]["attempt"] == 1
    found = told(client, f"{run_of('succeeded')}/tasks?find=[3]")["tasks"]
    assert [task["path"] for task in found] == [[3]]
    assert told(client, f"{run_of('failed')}/tasks?state=failed")["found"] == 1


def test_a_task_has_its_attempts_and_artifacts(client):
    """With their failures and previews."""
    found = told(client, f"{run_of('failed')}/tasks/work/3")
    assert [attempt["failure"]["message"][:8] for attempt in found["attempts"]] == [
        "first",
        "for good",
    ]
    found = told(client, f"{run_of('succeeded')}/tasks/start/1")
    previews = {each["name"]: each["preview"]["text"] for each in found["artifacts"]}
    assert previews == {"n": "4", "rows": "[1, 2, 3]"}
    assert found["children_count"] == 4


def test_the_log_is_searched_and_read_from_its_end(client):
    """Line by line, in any case, with where to go on."""
    found = told(client, f"{run_of('succeeded')}/log?find=needle")
    assert [line["text"] for line in found["lines"]] == ["NEEDLE"]
    assert found["end"]
    last = told(client, f"{run_of('succeeded')}/log?tail=1&limit=2")["lines"]
    assert [line["text"] for line in last] == ["line 3", "The run has succeeded."]
    first = told(client, f"{run_of('succeeded')}/log?limit=1")
    assert not first["end"]
    where = f"after={first['after']}&step=work&stream=stdout"
    rest = told(client, f"{run_of('succeeded')}/log?{where}")
    assert [line["text"] for line in rest["lines"]] == [
        "line 0",
        "line 1",
        "line 2",
        "NEEDLE",
        "line 3",
    ]


def test_events_come_page_by_page_each_once(client):
    """By their numbers."""
    seen, after = [], 0
    while True:
        found = told(client, f"{run_of('succeeded')}/events?limit=3&after={after}")
        seen += [event["seq"] for event in found["events"]]
        after = found["after"]
        if found["end"]:
            break
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == told(client, run_of("succeeded"))["seq"]
    kinds = told(client, f"{run_of('failed')}/events?type=TaskFailed")["events"]
    assert [event["type"] for event in kinds] == ["TaskFailed", "TaskFailed"]


PLANNED = """
from asyncflow import FlowSpec, card, step
class Planned(FlowSpec):
    @card
    @card(type="html")
    @step
    def start(self):
        self.html = "<script>document.title = document.cookie</script>"
        self.cities = ["Berlin", "Paris", "Rome"]
        self.next(self.work, foreach="cities")
    @step
    def work(self):
        assert self.input != "Paris"
        self.next(self.join)
    @step
    def join(self, inputs):
        self.next(self.end)
    @step
    def end(self):
        pass
"""


@pytest.fixture(scope="module")
def planned(folder):
    """A real run that has failed: its flow's file, its store and a client of a page on that."""
    flow, store = folder / "planned.py", folder / "planned"
    flow.write_text(PLANNED)
    command = [sys.executable, "-m", "asyncflow", "run", str(flow), "--store", str(store)]
    subprocess.run([*command, "--quiet"], check=False, capture_output=True, timeout=60)
    with asking(store) as client:
        yield flow, store, client


def test_a_plan_is_that_of_the_command_line(planned):
    """Both are made by the same code; here by the graph of the run, and no file is loaded."""
    flow, store, client = planned
    command = [sys.executable, "-m", "asyncflow", "resume", str(flow), "--store", str(store)]
    done = subprocess.run(
        [*command, "--plan", "--json"], capture_output=True, text=True, check=True, timeout=60
    )
    run = told(client, "/api/runs/Planned/latest")["run"]["pathspec"]
    assert told(client, f"/api/plan?run={run}")["steps"] == json.loads(done.stdout)


def test_a_task_is_found_by_its_item(planned):
    """In any case; and its row has the item, and what it has used."""
    _, _, client = planned
    found = told(client, "/api/runs/Planned/latest/tasks?find=PARIS")["tasks"]
    assert [(task["item"], task["status"]) for task in found] == [("'Paris'", "failed")]
    assert found[0]["memory"] > 1_000_000
    assert told(client, "/api/runs/Planned/latest/tasks?find=Oslo")["found"] == 0


def test_a_card_is_data_or_a_document_that_reaches_nothing(planned):
    """HTML of a step has an origin of its own, whoever opens its address, and loads nothing."""
    _, _, client = planned
    where = "/api/runs/Planned/latest"
    assert [card["id"] for card in told(client, f"{where}/cards/start/1")["cards"]] == [
        "default",
        "html",
    ]
    assert told(client, f"{where}/cards/start/1/default")["parts"]
    document = client.get(f"{where}/cards/start/1/html?html=1")
    policy = document.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy  # so that of `default-src` counts
    assert "document.cookie" in document.text
    assert client.get(f"{where}/cards/start/1/nothing").status_code == 404
    assert told(client, where)["graph"]["nodes"][0]["cards"] == ["default", "html"]


def test_a_comparison_reads_no_value_that_is_equal(client, monkeypatch):
    """Only hashes are compared; of what differs, a preview is made."""
    from asyncflow.store.artifacts import ArtifactReader

    read = []
    kept = ArtifactReader.read_range

    def counted(self, *given):
        read.append(given)
        return kept(self, *given)

    monkeypatch.setattr(ArtifactReader, "read_range", counted)
    same = f"Made/{RUNS['succeeded']}"
    found = told(client, f"/api/diff?a={same}&b={same}")
    assert (found["artifacts"], found["parameters"], read) == ([], [], [])
    assert found["artifacts_same"] == 6


@pytest.mark.usefixtures("client")  # which makes the store
def test_the_times_of_steps_are_read_from_a_long_journal_if_they_are_asked_for(folder, monkeypatch):
    """The first answer does without them."""
    monkeypatch.setattr("asyncflow.client.step_rows._FEW_TASKS", 0)
    address = run_of("failed")
    with asking(folder / "store") as client:  # which has no run open yet
        first = {each["step"]: each["seconds"] for each in told(client, address)["steps"]}
        asked = told(client, f"{address}?times=1")["steps"]
        refused = client.get(f"{address}?times=2").status_code
    assert first == dict.fromkeys(first)
    assert {each["step"]: each["seconds"] for each in asked}["work"] > 0
    assert refused == 400


# --- hostile stores -----------------------------------------------------------------------------


def test_nothing_of_a_store_is_run_or_imported(client, folder):
    """Every address is asked; no pickle makes its file, and no module of a user comes."""
    before = set(sys.modules)
    for kind in RUNS:
        for address in addresses(kind):
            client.get(address)
    assert not (folder / "touched").exists()
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert new <= {*sys.stdlib_module_names, "asyncflow", "starlette", "anyio"}
    text = told(client, f"{run_of('hostile')}/artifact/work/2/bomb")["preview"]["text"]
    assert "Path" in text


def test_markup_stays_text(client):
    """It comes as JSON, with a type that no browser takes for a page."""
    for address in addresses("hostile"):
        answer = client.get(address)
        assert answer.headers["content-type"].partition(";")[0] != "text/html"
        assert answer.headers["x-content-type-options"] == "nosniff"
    lines = told(client, f"{run_of('hostile')}/log")["lines"]
    assert MARKUP in [line["text"] for line in lines]


@pytest.mark.parametrize(
    "address",
    [
        "/api/runs/../x",
        "/api/runs/%2e%2e/1",
        "/api/runs/Made/%2e%2e",
        "/api/runs/Made/1%2f2",
        f"/api/runs/Made/{RUNS['succeeded']}/tasks/work/99999999999999",
        f"/api/runs/Made/{RUNS['succeeded']}/tasks/%00/1",
        f"/api/runs/Made/{RUNS['succeeded']}/artifact/work/2/%2e%2e",
        "/api/flows/nix/form",
        "/api/flows/%2e%2e/durations",
        "/static/../mounting.py",
        "/static/%2e%2e/mounting.py",
    ],
)
def test_a_name_that_leads_elsewhere_is_not_found(client, address):
    """Neither out of the store nor out of the page's files."""
    assert client.get(address).status_code == 404


@pytest.mark.parametrize(
    "asked",
    [
        "/api/runs?limit=0",
        "/api/runs?limit=99999999999999999999",
        "/api/runs?since=yesterday",
        "/api/runs?status=fine",
        f"/api/runs/Made/{RUNS['succeeded']}/timeline?px=9999",
        f"/api/runs/Made/{RUNS['succeeded']}/timeline?from=9&to=3",
        f"/api/runs/Made/{RUNS['succeeded']}/events?type=Nothing",
        "/api/diff?a=x",
        "/api/plan?run=",
        "/api/watch?run=a/b/c",
    ],
)
def test_a_parameter_that_cannot_be_is_told(client, asked):
    """With what it may be."""
    answer = client.get(asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


# --- acting -------------------------------------------------------------------------------------


def test_tags_are_changed(client):
    """And the list finds the run by them at once."""
    headers = acting(client)
    changed = client.post(f"{run_of('failed')}/tags", json={"add": ["looked at"]}, headers=headers)
    assert changed.json() == {"tags": ["looked at"]}
    assert [row["run_id"] for row in told(client, "/api/runs?tag=looked at")["runs"]] == [
        RUNS["failed"]
    ]
    client.post(f"{run_of('failed')}/tags", json={"remove": ["looked at"]}, headers=headers)


@pytest.mark.parametrize(
    ("kind", "said"), [("failed", "it failed"), ("interrupted", "its engine is gone")]
)
def test_a_run_that_has_ended_cannot_be_cancelled(client, kind, said):
    """The answer says how it stands."""
    answer = client.post(f"{run_of(kind)}/cancel", json={}, headers=acting(client))
    assert answer.status_code == 409
    assert said in answer.json()["error"]["message"]


def test_a_report_names_the_item_of_a_failed_task(planned):
    """Of a foreach, the number of a task alone says little."""
    _, store, _ = planned
    (run,) = Flow("Planned", store=store).runs()
    assert "work/3 for 'Paris'" in report(run)


def test_the_store_is_not_written_to_by_looking(tmp_path):
    """A store that cannot be written to is shown all the same."""
    store = every_kind(tmp_path / "store", tmp_path / "touched")
    before = {path: path.stat().st_mtime_ns for path in Path(store).rglob("*")}
    with asking(store) as client:
        for kind in RUNS:
            for address in addresses(kind):
                client.get(address)
    assert {path: path.stat().st_mtime_ns for path in Path(store).rglob("*")} == before
