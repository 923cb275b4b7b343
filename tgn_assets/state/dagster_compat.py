"""Everything of Dagster that is used here and is private or beta.

pyproject.toml bounds the version of Dagster; `test_dagster_compat.py` says what another one would have to keep.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Set
from functools import wraps
from typing import Any, TypeVar, cast

import dagster as dg
from dagster import In, Out
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition  # noqa: F401
from dagster._core.events import EngineEventData, JobFailureData
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus  # noqa: F401 (imported from here)
from dagster._utils.error import SerializableErrorInfo

AnyAssets = TypeVar("AnyAssets", bound=dg.AssetsDefinition)
POOL = "home"
"""The pool of a renamed op: what limits it limits all that works on one TGN_HOME."""
PARTITION = "dagster/partition"
"""The tag of a run that names its week."""
FROM_OUTSIDE = "This run has been marked as failed from outside the execution context."
"""What Dagster says of a run that it, not the run's process, calls failed."""


def single_run_asset(**options: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset`, backfilled in one run for any number of weeks; without the warning that this policy is beta."""
    with warnings.catch_warnings(action="ignore", category=dg.BetaWarning):
        return dg.asset(backfill_policy=dg.BackfillPolicy.single_run(), **options)


def unfinished_backfill(instance: dg.DagsterInstance, job: str, assets: Set[dg.AssetKey]) -> str | None:
    """The id of a backfill that still launches runs, unless it is one of another job, or of none of `assets`."""
    statuses = [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=statuses)):
        of_assets = backfill.asset_selection is None or not assets.isdisjoint(backfill.asset_selection)
        if of_assets and backfill.job_name in (None, job):
            return backfill.backfill_id
    return None


def forget_captured_outputs(context: dg.OutputContext) -> None:
    """Lets go of what the assets of a run in this process have returned, which Dagster keeps until the run ends: the
    models of a large log are gigabytes, and later assets read them from their files."""
    if (captured := context.step_context.output_capture) is not None:
        captured.clear()


def renamed(
    asset: AnyAssets, *, keys: Mapping[dg.AssetKey, dg.AssetKey], name: Callable[[str], str], resources: Set[str]
) -> AnyAssets:
    """`asset`, or checks, under other `keys`; op and `resources` are called what `name` makes of their names.

    Functions keep taking resources by the names that they have in the code. Ops get a pool of their name.
    """
    op = asset.op
    function = cast(DecoratedOpFunction, op.compute_fn).decorated_fn
    own = {resource: name(resource) for resource in resources}
    outs = {out.name: Out.from_definition(out) for out in op.output_defs}
    node = dg.OpDefinition(
        DecoratedOpFunction(_with_parameters(function, own, keys)),
        name(op.name),
        ins={given.name: In.from_definition(given) for given in op.input_defs},
        outs={out: given._replace(io_manager_key=own[given.io_manager_key]) for out, given in outs.items()},
        description=op.description,
        config_schema=op.config_schema,
        required_resource_keys={own[key] for key in op.required_resource_keys},
        tags=op.tags,
        code_version=op.version,
        retry_policy=op.retry_policy,
        pool=name(POOL),
    )
    attributes = asset.with_attributes(asset_key_replacements=keys).get_attributes_dict()
    return cast(AnyAssets, type(asset).dagster_internal_init(**attributes | {"node_def": node}))


def _with_parameters(
    function: Callable[..., Any], names: Mapping[str, str], keys: Mapping[dg.AssetKey, dg.AssetKey]
) -> Callable[..., Any]:
    """`function` with other `names` of parameters, whose results name assets by other `keys`."""
    back = {new: old for old, new in names.items()}
    signature = inspect.signature(function)
    parameters = [given.replace(name=names.get(name, name)) for name, given in signature.parameters.items()]

    @wraps(function)
    def call(*arguments: Any, **given: Any) -> Any:
        made = function(*arguments, **{back.get(name, name): value for name, value in given.items()})
        return (_with_keys(one, keys) for one in made) if inspect.isgenerator(made) else _with_keys(made, keys)

    # The types of outputs are known, and Dagster could not infer those of an asset with checks.
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _with_keys(result: Any, keys: Mapping[dg.AssetKey, dg.AssetKey]) -> Any:
    """A result of an asset's function, with other `keys`."""
    if isinstance(result, dg.ObserveResult | dg.MaterializeResult):
        metadata = {name: _lineage_with_keys(value, keys) for name, value in (result.metadata or {}).items()}
        key = result.asset_key and keys.get(result.asset_key, result.asset_key)
        return result._replace(asset_key=key, metadata=metadata)
    return result


def _lineage_with_keys(value: Any, keys: Mapping[dg.AssetKey, dg.AssetKey]) -> Any:
    if not isinstance(value, dg.TableColumnLineage):
        return value
    deps = {
        column: [dg.TableColumnDep(keys.get(dep.asset_key, dep.asset_key), dep.column_name) for dep in made_from]
        for column, made_from in value.deps_by_column.items()
    }
    return dg.TableColumnLineage(deps)


def event_error(event: dg.DagsterEvent) -> SerializableErrorInfo | None:
    """The error that an event about a run as a whole carries."""
    data = event.event_specific_data
    return data.error if isinstance(data, EngineEventData | JobFailureData) else None


def error_chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    """`error`, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.cause
