"""Creates a run: its folder, its first artifacts, and the first record of its journal."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from asyncflow import codec
from asyncflow._support.commit_points import reached
from asyncflow._support.user_name import user_name
from asyncflow._support.version import VERSION
from asyncflow.engine.found_runs import begun_run
from asyncflow.errors import FlowError, ResumeError
from asyncflow.events.manifests import pack_manifest, pack_ref, unpack_manifest
from asyncflow.events.packing import pack_event
from asyncflow.events.types import SCHEMA_VERSION, RunStarted, from_microseconds
from asyncflow.flow import loader
from asyncflow.flow.constants import constants_of
from asyncflow.flow.delayed_values import WRITTEN_CLASS, has_configs
from asyncflow.flow.graph_reader import prepare, read_graph
from asyncflow.flow.include_file import FileStream
from asyncflow.flow.parameter_values import resolve_new_parameters, resolve_parameters, shown_value
from asyncflow.flow.parameters import parameters_of
from asyncflow.flow.signature import signature_of
from asyncflow.flow.step_options import options_of
from asyncflow.scheduling.run_identity import RunIdentity
from asyncflow.store.artifacts import ArtifactWriter
from asyncflow.store.frames import frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncflow.engine.run_trace import RunTrace
    from asyncflow.flow.code_files import CodeFiles, FoundCode
    from asyncflow.flow.graph import Graph
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.scheduling.resume import OriginRun
    from asyncflow.store.interface import JournalAppender, KeyHolder, RunStore, StoredRun
    from asyncflow.values import ArtifactRef, RunOptions
    from asyncflow.workers.program_environment import ProgramEnvironment

_SHOWN_PARAMETER_CHARACTERS: Final = 200
_MOST_VARIABLE_BYTES: Final = 1 << 15  # they travel in one packet with the rest of the environment


class FoundByKey(Exception):
    """A run with the key has begun already."""

    def __init__(self, run: StoredRun) -> None:
        super().__init__(run.pathspec)
        self.run = run


class NewRun:
    """Creates a run's folder, first artifacts and first record; used in a thread."""

    def __init__(
        self,
        store: RunStore,
        flow: type[FlowSpec],
        tags: tuple[str, ...],
        code: CodeFiles,
        environ: Mapping[str, str],
        *,
        durable: bool,
    ) -> None:
        self._store, self._flow, self._tags = store, flow, tags
        self._code, self._environ, self._durable = code, environ, durable
        self.graph: Graph
        """The graph of the flow as it is configured; known once values are given."""
        self.origin: OriginRun | None = None
        self.parameters: Mapping[str, Any] = {}
        self.trace: RunTrace | None = None
        """Whoever traces the run, if somebody does."""
        self._once = False

    def give(self, values: Mapping[str, Any]) -> None:
        """Give values of parameters and of configurations by name; the others have defaults.

        Raises:
            ParameterError: One is unknown, is missing, or cannot take its value.
        """
        given, configs = dict(values), {}
        if has_configs(self._flow):
            from asyncflow.flow.config import config_names

            names = config_names(self._flow)
            configs = {name: given.pop(name) for name in names if name in given}
        self._flow = prepare(self._flow, configs, self._environ)
        self.graph = read_graph(self._flow)
        self.parameters = resolve_parameters(self._flow, given, self._environ)

    def take_over_from(self, run_id: str | None, step: str | None, *, once: bool = False) -> None:
        """Make this run resume another one, or the flow's latest; `once`: if none has done so."""
        from asyncflow.scheduling.resume import OriginRun, newest_run

        self._once = once
        name = self._flow.__name__
        if run_id is None:
            run_id = newest_run(self._store, name)
        stored = self._store.run(name, run_id)
        try:
            if not stored.is_being_written():
                stored.end_writing()
        except OSError as error:
            message = f"{name}/{run_id} cannot be resumed: {error.strerror or error}"
            raise ResumeError(message) from error
        origin = OriginRun(stored)
        try:
            self._flow = origin.prepared(self._flow, self._environ)
            self.graph = read_graph(self._flow)
            origin.choose(self.graph, step)
            known = unpack_manifest(origin.manifest)
            self.parameters = resolve_new_parameters(self._flow, known, self._environ)
        except BaseException:
            origin.close()
            raise
        self.origin = origin
        self._tags = tuple(dict.fromkeys([*origin.tags, *self._tags]))

    def create(
        self, number: int, options: RunOptions, surroundings: ProgramEnvironment
    ) -> tuple[RunIdentity, JournalAppender, bytes]:
        """Write the run to disk.

        A resumed run takes over the key of its origin.

        Raises:
            FoundByKey: There is a run with the key of the options.
        """
        with ExitStack() as held:
            keys = []
            if self._once and self.origin is not None:  # two resumes of a run have one key, too
                keys.append(self._hold(f"\0resumes {self.origin.run_id}", held, unique=True))
            key = options.key if self.origin is None else self.origin.key
            if key:
                unique = self.origin is None and not options.again
                keys.append(self._hold(key, held, unique=unique))
            return self._create(number, options, surroundings, keys)

    def _hold(self, key: str, held: ExitStack, *, unique: bool) -> KeyHolder:
        """Hold a key.

        Raises:
            FoundByKey: There is a run with this key, which should be `unique`.
        """
        flow = self._flow.__name__
        holder = held.enter_context(self._store.holding_key(flow, key))
        found = begun_run(self._store, flow, holder.run_id) if unique else None
        if found is not None:
            raise FoundByKey(found)
        return holder

    def _create(
        self,
        number: int,
        options: RunOptions,
        surroundings: ProgramEnvironment,
        keys: Sequence[KeyHolder],
    ) -> tuple[RunIdentity, JournalAppender, bytes]:
        name = self._flow.__name__
        self.graph = self._placed(options)
        variables = variables_of(self._flow, self.graph, self._environ)
        secrets = {text for each in variables.values() for text in each.values()}
        code = self._code.find(_written_class(self._flow), sorted(secrets))
        stored = self._store.make_run(name)
        before = [holder.run_id for holder in keys]
        identity = RunIdentity(
            number=number,
            stored=stored,
            tags=self._tags,
            started=min(int(stored.run_id), time.time_ns() // 1000),  # a clock may go back
            surroundings=surroundings,
            options=options,
            durable=self._durable,
            variables=variables,
            hidden_code=code.hidden,
        )
        try:
            for holder in keys:
                holder.give_to(stored.run_id)
            journal, record = self._begin(identity, code)
        except BaseException:
            stored.discard()
            for holder, run_id in zip(keys, before, strict=True):
                if run_id:
                    holder.give_to(run_id)
            raise
        return identity, journal, record

    def _placed(self, options: RunOptions) -> Graph:
        """The graph with the run's place in its project."""
        asked = options.branch is not None or options.production is not None
        if not asked and "project" not in self.graph.options:
            return self.graph
        from asyncflow.flow.project import placed_in_project

        origin = None if self.origin is None else self.origin.graph.options.get("project")
        return placed_in_project(
            self.graph,
            branch=options.branch,
            production=options.production,
            user=user_name(),
            origin=origin,
        )

    def _begin(self, identity: RunIdentity, code: FoundCode) -> tuple[JournalAppender, bytes]:
        # The journal comes first: a run with other files but no journal counts as damaged.
        journal = identity.stored.begin_journal(durable=self._durable)
        try:
            writer = ArtifactWriter(identity.stored.value_sink("engine", durable=self._durable))
            try:
                record = pack_event(self._traced(self._first_event(identity, writer, code)))
                writer.sync()
            finally:
                writer.close()
            reached("run.begin")
            journal.write(frame(record))
            reached("run.begun")
            self._check_origin()
        except BaseException:
            journal.close()
            raise
        return journal, record

    def _check_origin(self) -> None:
        """Refuse to resume a run that was removed while this one was being created.

        Whoever removes a run checks afterwards whether a new run resumes it. We check whether the
        run is still there after our first record says that we resume it. One of the two sees the
        other.
        """
        if self.origin is not None and not self.origin.is_there():
            message = (
                f"{self._flow.__name__}/{self.origin.run_id} has just been removed: start the flow "
                "again, or resume another of its runs"
            )
            raise ResumeError(message)

    def _first_event(
        self, identity: RunIdentity, writer: ArtifactWriter, code: FoundCode
    ) -> RunStarted:
        flow = self._flow
        codec.pickle_by_value(flow.__module__)
        configs = _stored_configs(flow)
        known = {**configs, **self.parameters}
        values = {**constants_of(flow), **known}
        manifest = {name: _put(value, name, writer) for name, value in values.items()}
        shown = {name: shown_value(value) for name, value in known.items()}
        if self.origin is not None:
            shown |= self.origin.parameters
            kept = unpack_manifest(self.origin.manifest)
            names = (*configs, *parameters_of(flow))
            manifest |= {name: kept[name] for name in names if name in kept}
        source = self._source(writer, identity.variables)
        if code.root:
            source["root"] = code.root
        return RunStarted(
            flow=identity.flow,
            run_id=identity.run_id,
            seq=1,
            time=from_microseconds(identity.started),
            graph=self.graph.to_data(),
            parameters=shown,
            tags=self._tags,
            manifest=pack_manifest(manifest),
            origin_run_id=self.origin.run_id if self.origin is not None else None,
            origin_step=self.origin.step if self.origin is not None else None,
            source=source,
            user=user_name(),
            pid=os.getpid(),
            host=os.uname().nodename,
            versions={
                "python": sys.version.split()[0],
                "asyncflow": VERSION,
                "events": str(SCHEMA_VERSION),
            },
            code_ref=pack_ref(_put_code(code.packed, writer)) if code.packed else b"",
            key=identity.options.key if self.origin is None else self.origin.key,
            signature=signature_of(flow),
        )

    def _traced(self, started: RunStarted) -> RunStarted:
        """The first event with the run's trace."""
        if self.trace is None:
            return started
        origin = {} if self.origin is None else self.origin.trace
        return replace(started, trace=self.trace.begin(started, origin))

    def _source(
        self, writer: ArtifactWriter, variables: Mapping[str, Mapping[str, str]]
    ) -> dict[str, Any]:
        """How a worker gets the flow class; cells of a notebook are kept without the variables."""

        def put(cls: type[FlowSpec]) -> ArtifactRef:
            from asyncflow.flow.cell_sources import with_cells

            secrets = {text for each in variables.values() for text in each.values()}
            with codec.complete_code():  # a worker can use nothing else
                return writer.put(with_cells(cls, secrets), name="the flow class")

        return loader.describe(_written_class(self._flow), put)


def _stored_configs(flow: type[FlowSpec]) -> dict[str, Any]:
    """The values of the flow's configurations, as they are kept."""
    if not has_configs(flow):
        return {}
    from asyncflow.flow.configuration import stored_configs_of

    return stored_configs_of(flow)


def _written_class(flow: type[FlowSpec]) -> type[FlowSpec]:
    """The class as the user wrote it, for one that was configured."""
    return getattr(flow, WRITTEN_CLASS, flow)


def variables_of(
    flow: type[FlowSpec], graph: Graph, environ: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The variables of `@environment` and `@secrets`, by step.

    Raises:
        FlowError: They are too large to be sent to a worker, or a secret cannot be read.
    """
    found = {}
    for node in graph:
        options = options_of(getattr(flow, node.name, None))
        if options is not None and options.variables:
            found[node.name] = options.variables
        if options is not None and options.secrets:
            from asyncflow.flow.step_secrets import secret_variables

            given = secret_variables(node.name, options, environ)
            found[node.name] = {**options.variables, **given}
    size = sum(
        len(f"{each}{value}".encode()) for vars_ in found.values() for each, value in vars_.items()
    )
    if size > _MOST_VARIABLE_BYTES:
        message = (
            f"the variables of @environment and @secrets have {size} bytes, and a flow may have "
            f"{_MOST_VARIABLE_BYTES}: give the flow the data in a file"
        )
        raise FlowError(message)
    return found


def _put(value: Any, name: str, writer: ArtifactWriter) -> ArtifactRef:
    if isinstance(value, FileStream):
        return writer.put_stream(value.pieces(), value.size, is_text=value.is_text)
    return writer.put(value, name=name)


def _put_code(code: bytes, writer: ArtifactWriter) -> ArtifactRef:
    return writer.put_encoded(codec.encode(code), once=True)
