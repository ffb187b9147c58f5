from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import GraphError
from asyncflow.flow.graph import Graph
from asyncflow.flow.graph_drawing import to_dot, to_mermaid, to_text
from asyncflow.flow.node import Fanout, Node, Transition
from tests.support.random_graphs import Built, shapes

if TYPE_CHECKING:
    from asyncflow.flow.node import Node as AnyNode


def node(name: str, *following: str, **attributes) -> AnyNode:
    """A step of a file in which it stands on line 7."""
    return Node(name, following, file="flow.py", line=7, **attributes)


END = node("end")

NESTED = Graph(
    "Nested",
    [
        node("start", "spread", foreach="groups"),
        node("spread", "work", foreach="items", doc="Lay it out.\n\nAll of it."),
        node("work", "left", "right", is_async=True),
        node("left", "meet"),
        node("right", "meet", options={"retry": {"times": 3}}),
        node("meet", "gather", is_join=True),
        node("gather", "collect", is_join=True),
        node("collect", "end", is_join=True),
        END,
    ],
)


def refusal(*nodes: AnyNode) -> GraphError:
    """The error with which these steps are refused."""
    with pytest.raises(GraphError) as caught:
        Graph("F", nodes)
    return caught.value


# --- what a graph knows -----------------------------------------------------------------------


def test_nodes_are_in_the_order_of_the_flow():
    """A step comes after all that lead to it, and branches in the order of the code."""
    names = ["start", "spread", "work", "left", "right", "meet", "gather", "collect", "end"]
    assert list(NESTED.nodes) == names
    assert [each.name for each in NESTED] == names


def test_how_a_step_goes_on_follows_from_its_next():
    """One step is no fan-out, several are branches, a foreach is one."""
    fanouts = [NESTED[name].fanout for name in ("start", "work", "left", "end")]
    assert fanouts == [Fanout.FOREACH, Fanout.BRANCH, Fanout.NONE, Fanout.NONE]


def test_splits_and_joins_know_each_other():
    """A join closes the innermost open split."""
    pairs = {each.name: each.joins for each in NESTED if each.is_join}
    assert pairs == {"meet": "work", "gather": "spread", "collect": "start"}
    assert {NESTED[split].join for split in pairs.values() if split} == set(pairs)


def test_depth_counts_the_foreachs_around_a_step():
    """Branches do not count, and a join stands where its split does."""
    depths = {each.name: each.depth for each in NESTED}
    assert depths == {
        "start": 0,
        "spread": 1,
        "work": 2,
        "left": 2,
        "right": 2,
        "meet": 2,
        "gather": 1,
        "collect": 0,
        "end": 0,
    }


def test_a_join_may_be_a_split():
    """A join may lead to several steps or be a foreach itself."""
    graph = Graph(
        "F",
        [
            node("start", "a", "b"),
            node("a", "middle"),
            node("b", "middle"),
            node("middle", "work", is_join=True, foreach="items"),
            node("work", "last"),
            node("last", "end", is_join=True),
            END,
        ],
    )
    assert (graph["middle"].joins, graph["middle"].join) == ("start", "last")


def test_the_steps_before_a_join_are_in_the_order_of_the_branches():
    """However long each branch is."""
    graph = Graph(
        "F",
        [
            node("start", "b", "a"),
            node("a", "join"),
            node("b", "b2"),
            node("b2", "join"),
            node("join", "end", is_join=True),
            END,
        ],
    )
    assert graph.previous("join") == ("b2", "a")
    assert graph.previous("start") == ()


def test_a_graph_is_asked_by_name():
    """It is a container of nodes that knows names."""
    assert "work" in NESTED
    assert "nothing" not in NESTED
    assert len(NESTED) == 9
    assert repr(Graph("F", [node("start", "end"), END])) == "<Graph F: start, end>"


def test_a_long_flow_is_no_deeper_than_a_short_one():
    """Ten thousand steps in a row are read without recursion."""
    count = 10_000
    chain = [node(f"step{number}", f"step{number + 1}") for number in range(count)]
    graph = Graph("F", [node("start", "step0"), *chain, node(f"step{count}", "end"), END])
    assert len(graph) == count + 3


# --- what is no graph -------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["start", "end"])
def test_a_flow_has_a_start_and_an_end(missing):
    """The error names the step that is missing, and the flow's file."""
    steps = [each for each in (node("start", "end"), END) if each.name != missing]
    error = refusal(*steps)
    assert error.step == missing
    assert f"flow.py:7: flow 'F' has no step '{missing}'" in str(error)
    assert "add one" in str(error)


def test_a_flow_without_steps_has_no_start():
    """There is no file to name then."""
    assert "has no step 'start'" in str(refusal())


def test_an_unknown_step_is_named():
    """With the step that leads to it, the line, and the name that may have been meant."""
    error = refusal(node("start", "trian"), node("train", "end"), END)
    assert (error.step, error.file, error.line) == ("start", "flow.py", 7)
    assert "leads to 'trian', but there is no such step; did you mean 'train'?" in str(error)


def test_a_step_that_is_never_reached_is_named():
    """All of them are, the first with its line."""
    error = refusal(node("start", "end"), node("lost", "gone"), node("gone", "end"), END)
    assert error.step == "lost"
    assert "is never reached (neither are gone)" in str(error)


def test_a_cycle_is_shown():
    """With all its steps, in their order."""
    error = refusal(node("start", "a"), node("a", "b"), node("b", "c"), node("c", "a"), END)
    assert error.step == "c"
    assert "leads back to 'a' (a -> b -> c -> a)" in str(error)


def test_a_step_cannot_lead_to_itself():
    """That is the shortest cycle."""
    assert "leads back to 'start' (start -> start)" in str(refusal(node("start", "start"), END))


def test_a_cycle_apart_from_the_flow_is_refused():
    """Be it never reached."""
    error = refusal(node("start", "end"), node("a", "b"), node("b", "a"), END)
    assert "leads back to 'a'" in str(error)


def test_a_split_is_joined_before_the_end():
    """The error names the split that is still open."""
    error = refusal(node("start", "a", foreach="items"), node("a", "end"), END)
    assert error.step == "end"
    assert "while the split in step 'start' is still open" in str(error)
    assert "add a join" in str(error)


def test_a_join_without_a_split_is_refused():
    """The error names the step that leads to it."""
    error = refusal(node("start", "join"), node("join", "end", is_join=True), END)
    assert "takes `inputs`, but no split is open where step 'start' leads to it" in str(error)


def test_branches_that_meet_in_a_plain_step_are_refused():
    """The step would run once for each of them: it has to be a join."""
    error = refusal(node("start", "a", "b"), node("a", "c"), node("b", "c"), node("c", "end"), END)
    assert "'c' is reached from 'a' and 'b', but is not a join" in str(error)
    assert "def c(self, inputs)" in str(error)


def test_branches_that_do_not_meet_are_refused():
    """The error names the branches on either side."""
    error = refusal(
        node("start", "a", "b"),
        node("a", "one"),
        node("b", "other"),
        node("one", "end", is_join=True),
        node("other", "end", is_join=True),
        END,
    )
    assert "'start' splits into branches that do not meet" in str(error)
    assert "'b' does not lead to the join 'one', but 'a' does" in str(error)


def test_a_join_takes_branches_of_one_split_only():
    """Two splits cannot be closed at once."""
    error = refusal(
        node("start", "a", "b"),
        node("a", "c", "d"),
        node("b", "join"),
        node("c", "join"),
        node("d", "join"),
        node("join", "end", is_join=True),
        END,
    )
    assert "'join' joins branches of different splits" in str(error)
    assert "'c' comes from the split in 'a', step 'b' from that in 'start'" in str(error)


@pytest.mark.parametrize("attributes", [{"foreach": "items"}, {}])
def test_a_split_cannot_lead_directly_to_its_join(attributes):
    """A join reads what steps in between have made."""
    following = ["join"] if attributes else ["join", "a"]
    others = [] if attributes else [node("a", "join")]
    start = node("start", *following, **attributes)
    error = refusal(start, *others, node("join", "end", is_join=True), END)
    assert error.step == "start"
    assert "leads directly to the join 'join': put a step between them" in str(error)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("start", "end", is_join=True), END], "'start' takes `inputs`, but nothing comes"),
        ([node("start", "end"), node("end", is_join=True)], "'end' takes `inputs`, but cannot be"),
        (
            [node("start", "end"), node("end", "start")],
            "'end' is the last one: remove its self.nex",
        ),
        ([node("start"), END], "'start' leads nowhere"),
        ([node("start", "end", "end"), END], "'start' names a step twice"),
        ([node("start", "a", "b", foreach="x"), node("a"), node("b"), END], "over several steps"),
        ([node("start", "end"), node("start", "end"), END], "'start' is defined twice"),
    ],
)
def test_what_else_is_no_graph(nodes, words):
    """Each error says which step, and what is wrong with it."""
    error = refusal(*nodes)
    assert words in str(error)
    assert str(error).startswith("flow.py:7: step ")


# --- conditions -------------------------------------------------------------------------------


def choice(name: str, *following: str, **attributes) -> AnyNode:
    """A step that goes on to one of these, by the value of `kind`."""
    cases = tuple((step, step) for step in following)
    return node(name, *following, condition="kind", cases=cases, **attributes)


LOOP = Graph(
    "Loop",
    [
        node("start", "spread"),
        node("spread", "work", foreach="items"),
        choice("work", "work", "check", "meet"),
        choice("check", "work", "left", "right"),
        node("left", "meet"),
        node("right", "meet"),
        node("meet", "join"),
        node("join", "again", is_join=True),
        choice("again", "spread", "end"),
        END,
    ],
)


def test_conditions_meet_in_a_plain_step():
    """One of the steps that lead to it arrives, so it is no join, and no split is open there."""
    assert LOOP["meet"].depth == LOOP["work"].depth == 1
    assert LOOP["check"].fanout is Fanout.CONDITION
    assert LOOP["check"].join is None
    assert LOOP["spread"].join == "join"


def test_a_condition_may_lead_back():
    """To an earlier step of its branch or to itself; such steps come last among those before."""
    assert LOOP.previous("work") == ("spread", "work", "check")
    assert LOOP.leads_back("work", "work")
    assert LOOP.leads_back("check", "work")
    assert LOOP.leads_back("again", "spread")
    assert not LOOP.leads_back("spread", "work")
    assert LOOP.before("work") == {*LOOP.nodes} - {"end"}


def test_a_graph_with_conditions_survives_being_plain_data():
    """Through msgpack and back, it is the same."""
    assert Graph.from_data(msgpack.unpackb(msgpack.packb(LOOP.to_data()))) == LOOP


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [choice("start", "a", "b"), node("a", "end"), node("b", "a"), node("c", "c"), END],
            "'c' leads back to 'c'",
        ),
        ([choice("start", "start"), END], "never reached"),
        (
            [choice("start", "a", "end"), choice("a", "a", "b"), choice("b", "a"), END],
            "'a' never leads to the last step 'end'",
        ),
        (
            [
                node("start", "a", "b"),
                choice("a", "one", "other"),
                choice("b", "one", "other"),
                node("one", "end", is_join=True),
                node("other", "end", is_join=True),
                END,
            ],
            "'start' splits into branches that may meet in 'one' or in 'other'",
        ),
        (
            [
                node("start", "split"),
                node("split", "a", foreach="x"),
                choice("a", "start", "join"),
                node("join", "end", is_join=True),
                END,
            ],
            "'a' leads back to 'start' across a split or a join",
        ),
        (
            [
                node("start", "a", "b"),
                choice("a", "end", "c"),
                node("b", "c"),
                node("c", "end", is_join=True),
                END,
            ],
            "'end' is reached from",
        ),
    ],
)
def test_conditions_that_are_no_graph(nodes, words):
    """A loop can be left, stays in its branch, and what was split meets in one join."""
    assert words in str(refusal(*nodes))


def test_a_flow_may_have_one_step():
    """It is the first and the last one."""
    graph = Graph("F", [node("only", is_start=True, is_end=True)])
    assert (graph.start, graph.end, graph.previous("only")) == ("only", "only", ())


def test_a_flow_has_one_start():
    """A step that is marked and another one with the name contradict each other."""
    error = refusal(node("first", "start", is_start=True), node("start", "end"), END)
    assert "has @step(start=True), so the flow begins with it, but there is 'start'" in str(error)


def test_a_value_chooses_as_a_key_of_a_dict_does():
    """Equal values are one case; what is no case, or cannot be a key, chooses nothing."""
    switch = node("s", "a", "b", condition="k", cases=((1, "a"), ("x", "b"), (None, "a")))
    values: list[object] = [True, 1.0, "x", None]
    assert [switch.chosen(value) for value in values] == ["a", "a", "b", "a"]
    values = ["1", [], 2]
    assert [switch.chosen(value) for value in values] == [None, None, None]


def test_a_condition_in_pictures():
    """Each arrow has its cases; the step is a diamond."""
    graph = Graph(
        "F",
        [
            node(
                "start",
                "end",
                "start",
                condition="k",
                cases=(("a", "end"), (2, "end"), ('"', "start")),
            ),
            END,
        ],
    )
    assert to_text(graph) == ("F\n  start -> end if k is 'a' or 2, start if k is '\"'\n  end\n")
    assert '"start" -> "start" [label="k is \'\\"\'"];' in to_dot(graph)
    assert "step0 -->|\"k is '#34;'\"| step0" in to_mermaid(graph)
    loop = to_dot(LOOP)
    assert '"check" [shape=diamond];' in loop


# --- gangs ------------------------------------------------------------------------------------


def gang(name: str, *following: str, **attributes) -> AnyNode:
    """A step under `@parallel`."""
    return node(name, *following, options={"parallel": True}, **attributes)


GANG = Graph(
    "Gang",
    [
        node("start", "train", num_parallel="self.size"),
        gang("train", "join"),
        node("join", "end", is_join=True),
        END,
    ],
)


def test_a_gang_is_a_split_that_the_step_after_it_joins():
    """Its nodes are as the items of a foreach."""
    assert GANG["start"].fanout is Fanout.FOREACH
    assert (GANG["train"].depth, GANG["join"].joins) == (1, "start")


def test_a_graph_with_a_gang_survives_being_plain_data():
    """Through msgpack and back, it is the same."""
    assert Graph.from_data(msgpack.unpackb(msgpack.packb(GANG.to_data()))) == GANG


def test_a_gang_in_pictures():
    """The arrow to it says how many nodes it has."""
    assert "start -> train in parallel, self.size at once\n" in to_text(GANG)
    assert '"start" -> "train" [label="num_parallel self.size"];' in to_dot(GANG)
    assert "num_parallel self.size" in to_mermaid(GANG)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [node("start", "a", num_parallel="3"), node("a", "j")],
            "'start' leads to 'a' with `num_parallel`, but that is no step of a gang",
        ),
        (
            [node("start", "a", foreach="items"), gang("a", "j")],
            "'start' leads to 'a', which has @parallel: say how many tasks its gang has",
        ),
        (
            [node("start", "a", num_parallel="3"), gang("a", "b"), node("b", "j")],
            "'a' has @parallel, so a join follows it, and 'b' is none",
        ),
        (
            [
                node("start", "a", num_parallel="3"),
                gang("a", "b", "c"),
                node("b", "j"),
                node("c", "j"),
            ],
            "'a' has @parallel, so a join follows it: lead to one step",
        ),
        ([gang("start", "j")], "'start' has @parallel, but a gang cannot begin a flow"),
    ],
)
def test_gangs_that_are_no_graph(nodes, words):
    """A gang is one step between the step that says its size and the join."""
    assert words in str(refusal(*nodes, node("j", "end", is_join=True), END))


# --- any graph at all -------------------------------------------------------------------------


@given(shapes(), st.randoms())
def test_the_order_in_which_steps_are_given_does_not_matter(shape, random):
    """The same steps make the same graph, each step after those that lead to it."""
    built = Built(shape)
    shuffled = list(built.nodes)
    random.shuffle(shuffled)
    graph = Graph("Random", shuffled)
    assert graph == built.graph
    places = {name: place for place, name in enumerate(graph.nodes)}
    for each in graph:
        for target in each.next:
            leads_back = places[target] <= places[each.name]
            assert leads_back == graph.leads_back(each.name, target)


@given(shapes())
def test_every_split_has_one_join(shape):
    """Which says the same of it, stands at the same depth, and comes later."""
    graph = Built(shape).graph
    pairs = {each.name: str(each.join) for each in graph if each.fanout.opens_split}
    assert sorted(pairs.values()) == sorted(each.name for each in graph if each.is_join)
    for split, join in pairs.items():
        assert graph[join].joins == split
        assert graph[join].depth == graph[split].depth


@given(shapes())
def test_a_graph_survives_being_plain_data(shape):
    """Through msgpack and back, it is the same."""
    graph = Built(shape).graph
    assert Graph.from_data(msgpack.unpackb(msgpack.packb(graph.to_data()))) == graph


@given(shapes(), st.data())
def test_a_wrong_edge_is_refused_or_makes_another_graph(shape, data):
    """Whatever is wrong with a graph, it is told as a `GraphError` that names a step."""
    nodes = {each.name: each for each in Built(shape).nodes}
    names = st.sampled_from(sorted(nodes))
    changed = nodes[data.draw(names)]
    following = tuple(data.draw(st.lists(names, max_size=3)))
    nodes[changed.name] = Node(changed.name, following, is_join=data.draw(st.booleans()))
    try:
        graph = Graph("Random", nodes.values())
    except GraphError as error:
        named = error.step
    else:
        assert Graph.from_data(graph.to_data()) == graph
        named = "start"
    assert named in nodes


# --- pictures ---------------------------------------------------------------------------------


def test_a_graph_as_text():
    """Indented by open splits, with what makes a step special."""
    assert to_text(NESTED) == (
        "Nested\n"
        "  start -> spread for each of groups\n"
        "    spread -> work for each of items\n"
        "        Lay it out.\n"
        "      work (async) -> left, right\n"
        "        left -> meet\n"
        "        right (retry) -> meet\n"
        "      meet (joins work) -> gather\n"
        "    gather (joins spread) -> collect\n"
        "  collect (joins start) -> end\n"
        "  end\n"
    )


def test_a_graph_as_dot():
    """Names are quoted, since `node` and `graph` are words of the language."""
    graph = Graph("F", [node("start", "graph"), node("graph", "end"), END])
    assert to_dot(graph) == (
        'digraph "F" {\n'
        "  rankdir=LR;\n"
        "  node [shape=box];\n"
        '  "start" [shape=oval];\n'
        '  "graph";\n'
        '  "end" [shape=oval];\n'
        '  "start" -> "graph";\n'
        '  "graph" -> "end";\n'
        "}\n"
    )


def test_a_foreach_is_written_at_its_arrow():
    """In both languages for pictures."""
    assert '"start" -> "spread" [label="foreach groups"];' in to_dot(NESTED)
    assert 'step0 -->|"foreach groups"| step1' in to_mermaid(NESTED)


def test_a_graph_as_mermaid():
    """No step's name is an identifier there, since `end` is a word of the language."""
    assert to_mermaid(Graph("F", [node("start", "end"), END])) == (
        'flowchart LR\n    step0(["start"])\n    step1(["end"])\n    step0 --> step1\n'
    )


def test_a_transition_shows_as_it_is_written():
    """As in the source."""
    assert str(Transition(("a", "b"))) == "self.next(self.a, self.b)"
    assert str(Transition(("a",), "items")) == "self.next(self.a, foreach='items')"


def test_what_decorators_of_the_flow_say_comes_back_from_plain_data():
    """An older graph has none; anything but a mapping of names is refused."""
    graph = Graph("F", [node("start", "end"), END], {"schedule": {"daily": True}})
    data = msgpack.unpackb(msgpack.packb(graph.to_data()))
    assert Graph.from_data(data) == graph
    assert Graph.from_data(data).options == {"schedule": {"daily": True}}
    del data["options"]
    assert Graph.from_data(data).options == {}
    with pytest.raises(GraphError, match="options of a flow"):
        Graph.from_data(data | {"options": ["schedule"]})
